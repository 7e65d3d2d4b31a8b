"""How many tokens an answer may have: what is left of the context behind a prompt, and what a server allows.

Servers word their limits in many ways. A refusal that may be about length is answered with smaller requests; what is
accepted, and not the wording, says that it was.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from harness.client.error_response import Fault, Refusal
from harness.client.http_client import Client
from harness.client.request import ChatRequest, Request, TokenRequest
from harness.client.response import Reply
from harness.runs.schema import ServedModel

_TEMPLATE_TOKENS = 128
_MESSAGE_TOKENS = 16
"""Allowances for what a chat template adds to a prompt, on the safe side: a count decides where it is close."""


class TooLong(Exception):
    """A prompt leaves no room for an answer."""


class Uneven(Exception):
    """Several prompts have not the same room for their answers: they are to be asked one by one."""


class Fitting:
    """Asks one server with as many answer tokens as it allows.

    Args:
        served: the server's models by name, with the lengths of their contexts where it tells them.
    """

    def __init__(self, client: Client, served: Callable[[], dict[str, ServedModel]]) -> None:
        self._client, self._served = client, served
        self._counts_tokens = True
        self.allowed: dict[str, int] = {}
        """By model, the most answer tokens that the server was seen to allow, where that is less than was asked."""
        self.warnings: list[str] = []
        """For the report."""

    async def ask(self, request: Request) -> list[Reply]:
        """The answers to a request, whose bound is lowered to what the server allows.

        Raises:
            TooLong, Uneven. Fault, Refusal: as ``Client.ask``.
        """
        request = await self._fitted(request)
        try:
            return await self._client.ask(request)
        except Refusal as refusal:
            if request.answers > 1 or refusal.is_systematic:
                raise
            if request.max_tokens is None:
                if refusal.is_context:
                    raise TooLong from None
                raise
            return await self._ask_for_less(request, request.max_tokens, refusal)

    async def _ask_for_less(self, request: Request, asked: int, first: Refusal) -> list[Reply]:
        """The answer within a smaller bound.

        Raises:
            TooLong: none is small enough. Refusal: it was not about length.
        """
        if first.is_context:  # Without a bound of ours the server gives what is left of its context.
            try:
                return await self._client.ask(replace(request, max_tokens=None))
            except Refusal as refusal:
                if refusal.is_systematic:
                    raise
                if refusal.is_context:
                    raise TooLong from None
        elif not first.is_answer_limit and not await self._takes(replace(request, max_tokens=1)):
            raise first
        for bound in _smaller(asked, "" if first.is_context else first.named):
            try:
                replies = await self._client.ask(replace(request, max_tokens=bound))
            except Refusal as refusal:
                if refusal.is_systematic:
                    raise
                continue
            if not first.is_context:
                self._remember(request.model, bound, asked, first)
            return replies
        if first.is_context:
            raise TooLong
        raise first

    def _remember(self, model: str, bound: int, asked: int, why: Refusal) -> None:
        """Ask for no more from now on, said once."""
        if bound < self.allowed.get(model, asked):
            self.allowed[model] = bound
            self.warnings.append(
                f"{self._client.url} allows {model} at most {bound} answer tokens instead of {asked} ({why}); longer "
                "answers are truncated"
            )
            self._client.notice(f"warning: {self.warnings[-1]}")

    async def _takes(self, request: Request) -> bool:
        try:
            await self._client.ask(request)
        except Refusal:
            return False
        return True

    async def _fitted(self, request: Request) -> Request:
        """The request with ``max_tokens`` cut to what the server allows and to the room behind its prompt.

        Raises:
            TooLong: there is no room. Uneven: there is not the same room behind all prompts.
        """
        if request.max_tokens is None:
            return request
        if (allowed := self.allowed.get(request.model)) is not None and allowed < request.max_tokens:
            request = replace(request, max_tokens=allowed)
        model = self._served().get(request.model)
        limit = None if model is None else model.max_model_len
        room = None if limit is None else await self._room(request, limit)
        if room is None or request.max_tokens is None or room >= request.max_tokens:
            return request
        if request.answers > 1:
            raise Uneven
        if room <= 0:
            raise TooLong
        return replace(request, max_tokens=room)

    async def _room(self, request: Request, limit: int) -> int | None:
        """The tokens left behind the longest prompt, or a lower bound that is enough; None where nobody knows."""
        if isinstance(request, TokenRequest):
            return limit - max(map(len, request.prompts))
        size = sum(len(m.content.encode()) + _MESSAGE_TOKENS for m in request.messages) + _TEMPLATE_TOKENS
        if request.max_tokens is not None and size + request.max_tokens <= limit:
            return limit - size
        return None if (ids := await self._tokenize(request)) is None else limit - len(ids)

    async def _tokenize(self, request: ChatRequest) -> list[int] | None:
        if not self._counts_tokens:
            return None
        try:
            return await self._client.tokenize(request)
        except (Refusal, Fault) as error:
            if isinstance(error, Fault) and error.kind != "garbage":
                raise
            self._counts_tokens = False
            return None


def _smaller(asked: int, words: str) -> list[int]:
    """Bounds to try, the largest first: the largest number in a refusal's words below ``asked``, then halves."""
    numbers = [int(n.replace(",", "").replace("_", "")) for n in re.findall(r"\d[\d,_]*", words)]
    named = max((n for n in numbers if 1 < n < asked), default=None)
    bounds = [] if named is None else [named, named - 1]  # a limit may be exclusive
    half = asked // 2 if named is None else named // 2
    while half >= 1:
        bounds.append(half)
        half //= 2
    return bounds

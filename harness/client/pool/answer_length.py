"""The limit on an answer's tokens: the room that a prompt leaves in the context, and what a server allows.

Servers describe their limits in many ways. If a refusal may be about length, smaller limits are tried. The limit was
the reason if the server accepts one of them; the text of the refusal does not decide.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from harness.client.http.http_client import Client
from harness.client.protocol.error_response import Refusal, TransientError
from harness.client.protocol.request import ChatRequest, Request, TokenRequest
from harness.client.protocol.response import Reply
from harness.runs.schemas.manifest_schema import ServedModel

_TEMPLATE_TOKENS = 128
_MESSAGE_TOKENS = 16
"""Upper bounds on the tokens that a chat template adds to a chat, and to each message of it."""


class PromptTooLong(Exception):
    """A prompt leaves no room for an answer in the model's context."""


class UnequalRoom(Exception):
    """The prompts of a request leave different room for their answers: send each prompt in its own request."""


class AnswerLimiter:
    """Sends requests to one server with as many answer tokens as it allows.

    Args:
        served: returns the server's models by name, with their context lengths where the server reports them.
    """

    def __init__(self, client: Client, served: Callable[[], dict[str, ServedModel]]) -> None:
        self._client, self._served = client, served
        self._can_count_tokens = True
        """False once the server's /tokenize has failed."""
        self.limits: dict[str, int] = {}
        """By model, the limit that the server was found to allow, where it is below the requested one."""
        self.warnings: list[str] = []
        """Lines for the manifest and the report."""

    async def send(self, request: Request) -> list[Reply]:
        """Send a request with ``max_tokens`` lowered to what the context and the server allow; return the answers.

        Raises:
            PromptTooLong, UnequalRoom: the request does not fit into the context.
            TransientError, Refusal: as ``Client.send``.
        """
        request = await self._fit_to_context(request)
        try:
            return await self._client.send(request)
        except Refusal as refusal:
            if request.prompt_count > 1 or refusal.is_systematic:
                raise
            if request.max_tokens is None:
                if refusal.is_context:
                    raise PromptTooLong from None
                raise
            return await self._send_with_lower_limit(request, request.max_tokens, refusal)

    async def _send_with_lower_limit(self, request: Request, requested: int, first: Refusal) -> list[Reply]:
        """Send a refused request again with smaller limits until the server accepts one; return the answers.

        Args:
            requested: the limit that was refused.
            first: the refusal.

        Raises:
            PromptTooLong: the refusal names the context, and no limit is small enough.
            Refusal: it was not about length.
        """
        if first.is_context:  # Without a limit the server uses what is left of its context.
            try:
                return await self._client.send(replace(request, max_tokens=None))
            except Refusal as refusal:
                if refusal.is_systematic:
                    raise
                if refusal.is_context:
                    raise PromptTooLong from None
        elif not first.is_answer_limit and not await self._is_accepted(replace(request, max_tokens=1)):
            raise first
        for limit in _smaller_limits(requested, "" if first.is_context else first.searchable):
            try:
                replies = await self._client.send(replace(request, max_tokens=limit))
            except Refusal as refusal:
                if refusal.is_systematic:
                    raise
                continue
            if not first.is_context:
                self._remember_limit(request.model, limit, requested, first)
            return replies
        if first.is_context:
            raise PromptTooLong
        raise first

    def _remember_limit(self, model: str, limit: int, requested: int, reason: Refusal) -> None:
        """Use a lower limit for all further requests of a model, and warn about it once."""
        if limit < self.limits.get(model, requested):
            self.limits[model] = limit
            self.warnings.append(
                f"{self._client.url} allows {model} at most {limit} answer tokens instead of {requested} ({reason}); "
                "longer answers are truncated"
            )
            self._client.notice(f"warning: {self.warnings[-1]}")

    async def _is_accepted(self, request: Request) -> bool:
        """Return whether the server answers a request instead of refusing it."""
        try:
            await self._client.send(request)
        except Refusal:
            return False
        return True

    async def _fit_to_context(self, request: Request) -> Request:
        """Return the request with ``max_tokens`` lowered to the server's limit and the room behind the prompt.

        Raises:
            PromptTooLong: there is no room. UnequalRoom: not all of several prompts leave the requested room.
        """
        if request.max_tokens is None:
            return request
        if (limit := self.limits.get(request.model)) is not None and limit < request.max_tokens:
            request = replace(request, max_tokens=limit)
        model = self._served().get(request.model)
        context = None if model is None else model.max_model_len
        room = None if context is None else await self._room(request, context)
        if room is None or request.max_tokens is None or room >= request.max_tokens:
            return request
        if request.prompt_count > 1:
            raise UnequalRoom
        if room <= 0:
            raise PromptTooLong
        return replace(request, max_tokens=room)

    async def _room(self, request: Request, context: int) -> int | None:
        """Return how many tokens the longest prompt leaves in the context; None if it is not known.

        For a chat the UTF-8 bytes of the messages bound the tokens of the prompt; if the answer fits by that bound,
        the bound is used. Otherwise the server counts.
        """
        if isinstance(request, TokenRequest):
            return context - max(map(len, request.prompts))
        bound = sum(len(m.content.encode()) + _MESSAGE_TOKENS for m in request.messages) + _TEMPLATE_TOKENS
        if request.max_tokens is not None and bound + request.max_tokens <= context:
            return context - bound
        return None if (ids := await self._tokenize(request)) is None else context - len(ids)

    async def _tokenize(self, request: ChatRequest) -> list[int] | None:
        """Return a chat's token ids by the server's /tokenize; None if the server has no such route."""
        if not self._can_count_tokens:
            return None
        try:
            return await self._client.tokenize(request)
        except (Refusal, TransientError) as error:
            if isinstance(error, TransientError) and error.kind != "garbage":
                raise
            self._can_count_tokens = False
            return None


def _smaller_limits(requested: int, text: str) -> list[int]:
    """Return limits to try, the largest first.

    The first two are the largest number below ``requested`` in a refusal's text, and that number minus one, as a limit
    may be exclusive. Then follow halves, down to 1.
    """
    numbers = [int(n.replace(",", "").replace("_", "")) for n in re.findall(r"\d[\d,_]*", text)]
    named = max((n for n in numbers if 1 < n < requested), default=None)
    limits = [] if named is None else [named, named - 1]
    half = requested // 2 if named is None else named // 2
    while half >= 1:
        limits.append(half)
        half //= 2
    return limits

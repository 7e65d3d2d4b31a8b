"""Asking one server of a run: retries with backoff, lists that are divided, and what fits its context."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from time import monotonic
from typing import NoReturn

from harness.client import Client
from harness.errors import ServerError
from harness.jobs import CONVICTED, Divide, GivenUp, Job, Lost, Policy
from harness.presence import Presence
from harness.replies import Fault, Refusal, Reply
from harness.requests import ChatRequest, Request, TokenRequest, greeting

_TEMPLATE_TOKENS = 128
_MESSAGE_TOKENS = 16
"""Allowances for what a chat template adds to a prompt, on the safe side: a count decides where it is close."""


class Endpoint(Presence):
    """One server of a run, and the asking of it."""

    def __init__(self, client: Client, models: Sequence[str], policy: Policy) -> None:
        super().__init__(client, models, policy)
        self._counts_tokens = True
        self._last_success = -1.0
        self._quiet_until = 0.0

    async def ready(self) -> None:
        """Until the server is there and does not ask to be left alone."""
        while not self.up.is_set() or self._quiet_until > monotonic():
            await self.up.wait()
            await asyncio.sleep(self._quiet_until - monotonic())

    async def ask(self, job: Job) -> list[Reply | None]:
        """The answers, one a prediction, after as many attempts as it takes; None where a prompt does not fit.

        Of several answers some may be broken off (``Reply.broken_off``), never all.

        Raises:
            Lost: the server went away, or wants to be left alone. Divide: ask one by one. GivenUp: only this
                request fails.
            Refusal: 4xx for this request. ServerError: the server refuses everything.
        """
        sent = False
        while True:
            if not self.up.is_set():
                if sent:
                    self._lose(job)
                raise Lost
            if self._quiet_until > monotonic():
                raise Lost
            sent = True
            try:
                replies = await self._attempt(job.request)
                if all(reply is not None and reply.broken_off for reply in replies):
                    raise Fault("abort", "the server broke off the answer (finish_reason abort); it is shutting down")
            except Fault as fault:
                await self._bear(job, fault)
            except Refusal as refusal:
                if refusal.is_systematic:
                    self._object(job, refusal)
                if len(job.numbers) > 1:
                    raise Divide from None
                raise
            else:
                self._last_success = monotonic()
                return replies

    async def _attempt(self, request: Request) -> list[Reply | None]:
        fitted = await self._fit(request)
        if fitted is None:
            return [None]
        try:
            return [*await self.client.ask(fitted)]
        except Refusal as refusal:
            if not refusal.is_context or fitted.answers > 1:
                raise
        if fitted.max_tokens is None:
            return [None]
        try:  # Without a bound of ours the server gives what is left of its context.
            return [*await self.client.ask(replace(fitted, max_tokens=None))]
        except Refusal as refusal:
            if refusal.is_context:
                return [None]
            raise

    async def _fit(self, request: Request) -> Request | None:
        """The request with ``max_tokens`` cut to the room behind its prompt; None where there is no room.

        Raises:
            Divide: there is not the same room behind all prompts.
        """
        limit = self.served[request.model].max_model_len if request.model in self.served else None
        if limit is None or request.max_tokens is None:
            return request
        room = await self._room(request, limit)
        if room is None or room >= request.max_tokens:
            return request
        if request.answers > 1:
            raise Divide
        return replace(request, max_tokens=room) if room > 0 else None

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
            return await self.client.tokenize(request)
        except (Refusal, Fault) as error:
            if isinstance(error, Fault) and error.kind != "garbage":
                raise
            self._counts_tokens = False
            return None

    async def _bear(self, job: Job, fault: Fault) -> None:
        """Wait as the fault demands, or raise what ends this server's tries at the job."""
        now = monotonic()
        job.first_fault = now if job.first_fault is None else job.first_fault
        if fault.kind == "busy":
            pause = self.policy.pause(job, 2) if fault.retry_after is None else fault.retry_after
            self._quiet_until = max(self._quiet_until, now + min(pause, self.policy.wait))
            if now - job.first_fault > self.policy.wait:
                await self._give_up(job, fault)
            raise Lost
        job.attempts += 1
        if fault.kind in ("connection", "timeout", "abort") and not await self.answers():
            self._lose(job)
        # A connection is also lost when the server dies of a prompt: the second time it is not chance.
        if len(job.numbers) > 1 and (fault.kind != "connection" or job.attempts > 1):
            raise Divide
        if job.attempts > self.policy.retries:
            await self._give_up(job, fault)
        pause = self.policy.pause(job, job.attempts) if fault.retry_after is None else fault.retry_after
        await asyncio.sleep(min(pause, self.policy.wait))

    def _lose(self, job: Job) -> NoReturn:
        """The server went away with the job: chance, or what the job does to servers; often enough it is that.

        A job is alone in flight before it is blamed (``Job.is_suspect``).
        """
        job.losses += 1
        if len(job.numbers) > 1 and job.losses >= CONVICTED - 1:
            raise Divide from None
        if job.losses >= CONVICTED:
            lost = f"servers went away {job.losses} times while they had this request"
            raise GivenUp(f"{lost}: {self.explain()}") from None
        raise Lost from None

    def _object(self, job: Job, refusal: Refusal) -> NoReturn:
        """A refusal of the key, route or model: never a wrong prediction, but a server that must be mended."""
        job.attempts += 1
        if refusal.status in (401, 403) or job.attempts > self.policy.retries:
            raise ServerError(f"{self.client.url} refuses model {job.request.model!r}: {refusal}")
        self.fall(str(refusal), job.request.model)
        raise Lost

    async def _give_up(self, job: Job, fault: Fault) -> NoReturn:
        """Is it this request that fails, or the server? Something else that was answered meanwhile decides."""
        if len(job.numbers) > 1:
            raise Divide
        if job.first_fault is None or self._last_success < job.first_fault:
            try:
                await self.client.ask(greeting(job.request.model))
            except ServerError as error:
                job.forgive()
                self.fall(str(error), job.request.model)
                self._lose(job)
            self._last_success = monotonic()
        raise GivenUp(str(fault))

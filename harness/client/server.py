"""Asking one server of a run: retries with backoff, lists that are divided, and what fits its context."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import monotonic
from typing import NoReturn

from harness.client.answer_length import Fitting, TooLong, Uneven
from harness.client.error_response import Fault, Refusal
from harness.client.http_client import Client
from harness.client.request import Request
from harness.client.response import Reply
from harness.client.retry import CONVICTED, Divide, GivenUp, Job, Lost, Policy
from harness.client.server_health import Presence
from harness.core.errors import ServerError


class Endpoint(Presence):
    """One server of a run, and the asking of it."""

    def __init__(self, client: Client, models: Sequence[str], policy: Policy) -> None:
        super().__init__(client, models, policy)
        self.fitting = Fitting(client, lambda: self.served)
        self._last_success = -1.0
        self._quiet_until = 0.0
        self._told_to_wait = 0
        """How often in a row the server asked to be left alone; what is in flight at that moment counts once."""

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
                self._told_to_wait = 0
                return replies

    async def _attempt(self, request: Request) -> list[Reply | None]:
        try:
            return [*await self.fitting.ask(request)]
        except TooLong:
            return [None]
        except Uneven:
            raise Divide from None

    async def _bear(self, job: Job, fault: Fault) -> None:
        """Wait as the fault demands, or raise what ends this server's tries at the job."""
        now = monotonic()
        job.first_fault = now if job.first_fault is None else job.first_fault
        if fault.kind == "busy":
            if self._quiet_until <= now:
                self._told_to_wait += 1
            # A server may ask for no pause at all, and mean it for ever.
            pause = max(self.policy.pause(job, self._told_to_wait + 1), fault.retry_after or 0.0)
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
        pause = max(self.policy.pause(job, job.attempts), fault.retry_after or 0.0)
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
        if refusal.ends_run or job.attempts > self.policy.retries:
            raise ServerError(f"{self.client.url} refuses requests for model {job.request.model!r}: {refusal}")
        self.fall(str(refusal), job.request.model)
        raise Lost

    async def _give_up(self, job: Job, fault: Fault) -> NoReturn:
        """Is it this request that fails, or the server? Something else that was answered meanwhile decides."""
        if len(job.numbers) > 1:
            raise Divide
        if job.first_fault is None or self._last_success < job.first_fault:
            try:
                await self.client.ask(self.greeting(job.request.model))
            except ServerError as error:
                job.forgive()
                self.fall(str(error), job.request.model)
                self._lose(job)
            self._last_success = monotonic()
        raise GivenUp(str(fault))

"""Get answers from one server: retries with backoff, and lists that are split when one prompt may fail."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from time import monotonic
from typing import Generic, NoReturn, Protocol, TypeVar

from harness.client.http.http_client import Client
from harness.client.pool.answer_length import AnswerLimiter, PromptTooLong, UnequalRoom
from harness.client.pool.retry import Divide, GivenUp, Job, Lost, RequestT, RetryPolicy
from harness.client.pool.server_health import ServerHealth
from harness.client.protocol.error_response import Refusal, TransientError
from harness.client.protocol.request import Request
from harness.client.protocol.response import Reply
from harness.core.errors import ServerError


class Answer(Protocol):
    """What a server gives for one prompt of a job."""

    @property
    def aborted(self) -> bool:
        """Whether the server broke off, so that the prompt must be sent again."""


AnswerT = TypeVar("AnswerT", bound=Answer)


class JobServer(ServerHealth, ABC, Generic[RequestT, AnswerT]):
    """One server of a run: its health, and the jobs that it answers."""

    def __init__(self, client: Client, models: Sequence[str], policy: RetryPolicy) -> None:
        super().__init__(client, models, policy)
        self._last_success = -1.0
        """``monotonic()`` of the last answer."""
        self._busy_until = 0.0
        """``monotonic()`` until which the server asked to be left alone."""
        self._busy_periods = 0
        """How often in a row the server asked to wait; all requests in flight at that moment count once."""

    async def wait_until_ready(self) -> None:
        """Wait until the server answers and the pause that it asked for, if any, is over."""
        while not self.up.is_set() or self._busy_until > monotonic():
            await self.up.wait()
            await asyncio.sleep(self._busy_until - monotonic())

    async def answer_job(self, job: Job[RequestT]) -> list[AnswerT | None]:
        """Return the job's answers, one per prompt, after as many attempts as the policy allows.

        None stands for a prompt that does not fit into the context. Some of several answers may be aborted
        (``Answer.aborted``), but not all.

        Raises:
            Lost: the server stopped answering or asked to wait; another server may take the job.
            Divide: send the prompts one by one.
            GivenUp: this request fails though the server answers others.
            Refusal: the server refuses this request (4xx).
            ServerError: the server refuses every request, which only the user can fix.
        """
        sent = False
        while True:
            if not self.up.is_set():
                if sent:
                    job.record_server_loss(self.explain_downtime)
                raise Lost
            if self._busy_until > monotonic():
                raise Lost
            sent = True
            try:
                replies = await self._send_once(job.request)
                if all(reply is not None and reply.aborted for reply in replies):
                    message = "the server broke off the answer (finish_reason abort); it is shutting down"
                    raise TransientError("abort", message)
            except TransientError as error:
                await self._handle_transient_error(job, error)
            except Refusal as refusal:
                if refusal.is_systematic:
                    self._handle_systematic_refusal(job, refusal)
                if len(job.numbers) > 1:
                    raise Divide from None
                raise
            else:
                self._last_success = monotonic()
                self._busy_periods = 0
                return replies

    @abstractmethod
    async def _send_once(self, request: RequestT) -> list[AnswerT | None]:
        """Return the answers of one attempt; None for a prompt that does not fit into the context.

        Raises:
            TransientError, Refusal: as ``Client.send``. Divide: send the prompts one by one.
        """

    async def _handle_transient_error(self, job: Job[RequestT], error: TransientError) -> None:
        """Handle a retryable error: back off and return, or raise ``Lost``, ``Divide`` or ``GivenUp``."""
        now = monotonic()
        job.first_failure = now if job.first_failure is None else job.first_failure
        if error.kind == "busy":
            await self._handle_busy(job, error, job.first_failure, now)
        job.attempts += 1
        if error.kind in ("connection", "timeout", "abort") and not await self.is_answering():
            job.record_server_loss(self.explain_downtime)
        # A broken connection may be chance, or a prompt that crashes the server: split a list at the second one.
        if len(job.numbers) > 1 and (error.kind != "connection" or job.attempts > 1):
            raise Divide
        if job.attempts > self.policy.retries:
            await self._give_up(job, error)
        pause = max(self.policy.pause(job, job.attempts), error.retry_after or 0.0)
        await asyncio.sleep(min(pause, self.policy.wait))

    async def _handle_busy(
        self, job: Job[RequestT], error: TransientError, first_failure: float, now: float
    ) -> NoReturn:
        """Send nothing to this server for as long as it asks, and return the job to the queue.

        Being asked to wait is not a failed attempt, but ends after ``policy.wait`` seconds. Because a server may ask
        for no pause at all, the pause is at least the backoff.

        Raises:
            Lost, or what ``_give_up`` raises.
        """
        if self._busy_until <= now:
            self._busy_periods += 1
        pause = max(self.policy.pause(job, self._busy_periods + 1), error.retry_after or 0.0)
        self._busy_until = max(self._busy_until, now + min(pause, self.policy.wait))
        if now - first_failure > self.policy.wait:
            await self._give_up(job, error)
        raise Lost

    def _handle_systematic_refusal(self, job: Job[RequestT], refusal: Refusal) -> NoReturn:
        """Handle a refusal of the key, the route or the model, which says nothing about the prediction.

        Raises:
            Lost: the server is marked as down until it answers for this model again.
            ServerError: only the user can fix it, or it has happened too often.
        """
        job.attempts += 1
        if refusal.is_about_account or job.attempts > self.policy.retries:
            raise ServerError(f"{self.client.url} refuses requests for model {job.request.model!r}: {refusal}")
        self.mark_down(str(refusal), job.request.model)
        raise Lost

    async def _give_up(self, job: Job[RequestT], error: TransientError) -> NoReturn:
        """Decide whether the job or the server caused its failures.

        If the server has answered anything since the job's first failure, or answers a probe now, it is the job.

        Raises:
            Divide: the job has several prompts. GivenUp: it is the job. Lost: it is the server.
        """
        if len(job.numbers) > 1:
            raise Divide
        if job.first_failure is None or self._last_success < job.first_failure:
            try:
                await self.client.send(self.probe(job.request.model))
            except ServerError as probe_error:
                job.reset_attempts()
                self.mark_down(str(probe_error), job.request.model)
                job.record_server_loss(self.explain_downtime)
            self._last_success = monotonic()
        raise GivenUp(str(error))


class Server(JobServer[Request, Reply]):
    """A server that answers prompts.

    Attributes:
        limiter: lowers the answers' token limits to what the server allows.
    """

    def __init__(self, client: Client, models: Sequence[str], policy: RetryPolicy) -> None:
        super().__init__(client, models, policy)
        self.limiter = AnswerLimiter(client, lambda: self.served)

    async def _send_once(self, request: Request) -> list[Reply | None]:
        try:
            return [*await self.limiter.send(request)]
        except PromptTooLong:
            return [None]
        except UnequalRoom:
            raise Divide from None

"""One server of a run: retries with backoff, what fits its context, and whether it still answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from time import monotonic

from harness.client import ChatRequest, Client, greeting
from harness.errors import ServerError
from harness.records import ServedModel
from harness.replies import Fault, Refusal, Reply
from harness.rng import Stream

_LONGEST_BACKOFF = 30.0
_LONGEST_PROBE_PAUSE = 5.0
_TEMPLATE_TOKENS = 128
_MESSAGE_TOKENS = 16
"""Allowances for what a chat template adds to a prompt, on the safe side: a count decides where it is close."""


@dataclass(frozen=True)
class Policy:
    """How long to try. Times in seconds."""

    max_in_flight: int = 256
    """Requests in flight per server."""
    retries: int = 5
    """Further attempts for one request; being rate-limited or waiting for a server does not count."""
    timeout: float = 600.0
    """For one attempt."""
    wait: float = 600.0
    """How long to wait while no server answers."""
    backoff: float = 0.5
    """The first pause before another attempt; it doubles."""


@dataclass
class Job:
    """A request on its way, with what it has been through."""

    number: int
    request: ChatRequest
    attempts: int = 0
    first_fault: float | None = None

    def forgive(self) -> None:
        """The faults were the server's: start counting anew."""
        self.attempts, self.first_fault = 0, None


class Lost(Exception):
    """The server is away; the job is to be given to whoever is free."""


class GivenUp(Exception):
    """All attempts failed though the server answers others."""


class Endpoint:
    """One server of a run. ``up`` is set while it answers."""

    def __init__(self, client: Client, models: Sequence[str], policy: Policy) -> None:
        self.client = client
        self.served: dict[str, ServedModel] = {}
        self.up = asyncio.Event()
        self.down_since = monotonic()
        self.reason = "not asked yet"
        self._models = tuple(models)
        self._policy = policy
        self._counts_tokens = True
        self._last_success = -1.0
        self._quiet_until = 0.0
        self._check: asyncio.Task[bool] | None = None
        self.on_down: Callable[[Endpoint, str | None], None] = lambda endpoint, model: None

    async def greet(self) -> None:
        """Learn what the server has and takes.

        Raises:
            ServerError: it does not answer, is not OpenAI-compatible, or lacks a model of the run.
        """
        try:
            await self._patiently(self._list)
            for model in self._models:
                await self._patiently(partial(self.client.negotiate, model))
        except (Fault, Refusal) as error:
            raise ServerError(f"{self.client.url} is not answering as an OpenAI-compatible server: {error}") from None
        self._rise()

    async def _patiently(self, action: Callable[[], Awaitable[None]]) -> None:
        """Repeat what fails in a way that may pass; a server that nobody can connect to is not waited for here."""
        job = Job(0, greeting(""))
        while True:
            try:
                await action()
                return
            except Fault as fault:
                job.attempts += 1
                if fault.kind == "connection" or job.attempts > self._policy.retries:
                    raise
            await asyncio.sleep(self._backoff(job, job.attempts))

    async def ask(self, job: Job) -> Reply | None:
        """The answer, after as many attempts as it takes; None where the prompt does not fit the context.

        Raises:
            Lost: the server went away. GivenUp: only this request fails. Refusal: 4xx for this request.
            ServerError: the server refuses everything.
        """
        while True:
            while (pause := self._quiet_until - monotonic()) > 0:
                await asyncio.sleep(pause * (1 + 0.25 * _jitter(job)))
            if not self.up.is_set():
                raise Lost
            try:
                reply = await self._attempt(job.request)
            except Fault as fault:
                await self._bear(job, fault)
            except Refusal as refusal:
                if not refusal.is_systematic:
                    raise
                self._object(job, refusal)
            else:
                self._last_success = monotonic()
                return reply

    async def _attempt(self, request: ChatRequest) -> Reply | None:
        fitted = await self._fit(request)
        if fitted is None:
            return None
        try:
            return await self.client.chat(fitted)
        except Refusal as refusal:
            if not refusal.is_context:
                raise
        if fitted.max_tokens is None:
            return None
        try:  # Without a bound of ours the server gives what is left of its context.
            return await self.client.chat(replace(fitted, max_tokens=None))
        except Refusal as refusal:
            if refusal.is_context:
                return None
            raise

    async def _fit(self, request: ChatRequest) -> ChatRequest | None:
        """The request with ``max_tokens`` cut to the room behind its prompt; None where there is no room."""
        limit = self.served[request.model].max_model_len if request.model in self.served else None
        if limit is None or request.max_tokens is None or not self._counts_tokens:
            return request
        size = sum(len(m.content.encode()) + _MESSAGE_TOKENS for m in request.messages) + _TEMPLATE_TOKENS
        if size + request.max_tokens <= limit:
            return request
        try:
            room = limit - await self.client.count_tokens(request)
        except Refusal:
            self._counts_tokens = False
            return request
        return replace(request, max_tokens=min(request.max_tokens, room)) if room > 0 else None

    async def _bear(self, job: Job, fault: Fault) -> None:
        """Wait as the fault demands, or raise what ends this server's tries at the job."""
        now = monotonic()
        job.first_fault = now if job.first_fault is None else job.first_fault
        if fault.kind == "busy":
            pause = self._backoff(job, 2) if fault.retry_after is None else fault.retry_after
            self._quiet_until = max(self._quiet_until, now + min(pause, self._policy.wait))
            if now - job.first_fault > self._policy.wait:
                await self._give_up(job, fault)
            return
        job.attempts += 1
        if fault.kind in ("connection", "abort") and not await self._answers():
            raise Lost
        if job.attempts > self._policy.retries:
            await self._give_up(job, fault)
        await asyncio.sleep(self._backoff(job, job.attempts) if fault.retry_after is None else fault.retry_after)

    def _object(self, job: Job, refusal: Refusal) -> None:
        """A refusal of the key, route or model: never a wrong prediction, but a server that must be mended."""
        job.attempts += 1
        if refusal.status in (401, 403) or job.attempts > self._policy.retries:
            raise ServerError(f"{self.client.url} refuses model {job.request.model!r}: {refusal}")
        self._fall(str(refusal), job.request.model)
        raise Lost

    async def _give_up(self, job: Job, fault: Fault) -> None:
        """Is it this request that fails, or the server? Something else that was answered meanwhile decides."""
        if job.first_fault is None or self._last_success < job.first_fault:
            try:
                await self.client.chat(greeting(job.request.model))
            except ServerError as error:
                job.forgive()
                self._fall(str(error), job.request.model)
                raise Lost from None
            self._last_success = monotonic()
        raise GivenUp(str(fault))

    def _backoff(self, job: Job, attempt: int) -> float:
        """Seconds to wait before another attempt: doubling, with jitter from a quarter to the whole."""
        return min(_LONGEST_BACKOFF, self._policy.backoff * 2.0 ** (attempt - 1)) * (0.25 + 0.75 * _jitter(job))

    async def _answers(self) -> bool:
        """Whether the server still lists its models; many that ask at once share one look."""
        if self._check is None or self._check.done():
            self._check = asyncio.create_task(self._look())
        return await asyncio.shield(self._check)

    async def _look(self) -> bool:
        try:
            await self._list()
        except ServerError as error:
            self._fall(str(error), None)
        return self.up.is_set()

    async def _list(self) -> None:
        served = {model.name: model for model in await self.client.models()}
        if missing := [name for name in self._models if name not in served]:
            raise ServerError(
                f"{self.client.url} has no model {', '.join(map(repr, missing))}; it has: {', '.join(served) or 'none'}"
            )
        self.served = served

    def _fall(self, reason: str, model: str | None) -> None:
        self.reason = reason
        if self.up.is_set():
            self.up.clear()
            self.down_since = monotonic()
            self.on_down(self, model)

    def _rise(self) -> None:
        self.up.set()

    async def recover(self, model: str | None) -> None:
        """Look until the server answers again; with ``model``, until it also answers a request for it."""
        pause = 0.1
        while not self.up.is_set():
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PROBE_PAUSE)
            try:
                await self._list()
                if model is not None:
                    await self.client.chat(greeting(model))
            except ServerError as error:
                self.reason = str(error)
            else:
                self._rise()


def _jitter(job: Job) -> float:
    return Stream("jitter", job.number, job.attempts).uniform()

"""Whether one server of a run answers, and which models it has: connecting, noticing that it is down, recovering."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic

from harness.client.http.http_client import Client
from harness.client.http.server_log import root_cause
from harness.client.pool.retry import Job, RetryPolicy
from harness.client.pool.trial_requests import send_trial, startup_error
from harness.client.protocol.error_response import Refusal, TransientError
from harness.client.protocol.request import ChatRequest, Request, TokenRequest, probe_request
from harness.client.protocol.token_logprobs import UnusableLogprobs
from harness.core.errors import ServerError
from harness.runs.schemas.manifest_schema import ServedModel

_LONGEST_PROBE_PAUSE = 5.0
_REMINDER_PAUSES = (10.0, 60.0)
"""Seconds until the user is first told that a server has not answered its first request, and between reminders."""


@dataclass(frozen=True)
class TextSample:
    """A rendered prompt, for checking a server's tokenizer where no chat gives the same token ids."""

    model: str
    text: str


class ServerHealth:
    """The state of one server of a run.

    Attributes:
        up: set while the server answers.
        down_since: ``monotonic()`` at which it went down.
        reason: why it is down.
        served: the models that it lists, by name.
        version: of the server's software; None if it does not report one.
        hashes: by model, the content hash that the run's configuration records; a server with another one is
            treated as unavailable.
        tokenizer_samples: chats or texts with the token ids that the run sends in their place; a server whose
            /tokenize disagrees is treated as unavailable.
        trials: one request of the run per model, sent before anything else to learn what the server accepts.
        on_down: called when it goes down, with the model whose request showed it (None for any).
    """

    def __init__(self, client: Client, models: Sequence[str], policy: RetryPolicy) -> None:
        self.client = client
        self.policy = policy
        self.served: dict[str, ServedModel] = {}
        self.version: str | None = None
        self.hashes: dict[str, str] = {}
        self.tokenizer_samples: tuple[tuple[ChatRequest | TextSample, list[int]], ...] = ()
        self.trials: tuple[Request, ...] = ()
        self.up = asyncio.Event()
        self.down_since = monotonic()
        self.reason = "it has not answered its first request"
        self.on_down: Callable[[ServerHealth, str | None], None] = lambda server, model: None
        self._models = tuple(models)
        self._tried = False
        """Whether ``trials`` were sent successfully."""
        self._check: asyncio.Task[bool] | None = None

    async def connect(self) -> None:
        """Request the server's models and version, and mark it as up.

        Raises:
            ServerError: it does not answer, is not OpenAI-compatible, or lacks a model of the run.
        """
        try:
            await self._retry(self._refresh_models)
        except (TransientError, Refusal) as error:
            raise startup_error(self.client, self.policy, error) from None
        self.version = await self.client.version()
        self.up.set()

    async def send_trials(self) -> None:
        """Send ``trials``, so that parameters and messages that the server refuses are known before the run.

        Raises:
            NoSystemRole: it refuses system messages. ServerError: it does not answer.
        """
        try:
            await self._send_all_trials()
        except (TransientError, Refusal) as error:
            raise startup_error(self.client, self.policy, error) from None

    def probe(self, model: str) -> Request:
        """Return the smallest request by the run's route; a chat could fail where a model has no chat template."""
        trial = next((request for request in self.trials if request.model == model), None)
        if isinstance(trial, TokenRequest):
            return TokenRequest(model, (trial.prompts[0][:1],), 1, None)
        return probe_request(model)

    async def check_tokenizer(self) -> None:
        """Make sure that the server tokenizes ``tokenizer_samples`` to the token ids that the run sends.

        Raises:
            TransientError, Refusal: it does not say. ServerError: its token ids differ.
        """
        for request, ids in self.tokenizer_samples:
            if isinstance(request, TextSample):
                server_ids = await self.client.tokenize_text(request.model, request.text)
            else:
                server_ids = await self.client.tokenize(request)
            if server_ids != ids:
                raise ServerError(f"{self.client.url} reads prompts for {request.model} as other tokens than this run")

    async def is_answering(self) -> bool:
        """Return whether the server still lists its models; concurrent callers share one request.

        If it does not, it is marked as down.
        """
        if self._check is None or self._check.done():
            self._check = asyncio.create_task(self._check_models())
        return await asyncio.shield(self._check)

    def explain_downtime(self) -> str:
        """Return why the server is down, with the root cause from its log if this machine has the log."""
        cause = root_cause(self.client.log) if self.client.log is not None else None
        return self.reason if cause is None else f"{self.reason}; its log {self.client.log} says: {cause}"

    def mark_down(self, reason: str, model: str | None) -> None:
        """Treat the server as unavailable until it recovers.

        Args:
            model: the model whose request showed it; None for any.
        """
        self.reason = reason
        if self.up.is_set():
            self.up.clear()
            self.down_since = monotonic()
            self.on_down(self, model)

    async def wait_until_recovered(self, model: str | None) -> None:
        """Probe the server, with pauses up to 5 s, until it is usable again, and mark it as up.

        Args:
            model: a model for which it must also answer a request; None for none.
        """
        pause = 0.1
        while not self.up.is_set():
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PROBE_PAUSE)
            try:
                await self._refresh_models()
                if not self._tried:
                    await self._send_all_trials()
                await self.check_tokenizer()
                if model is not None:
                    await self.client.send(self.probe(model))
                self.version = await self.client.version() or self.version
            except ServerError as error:
                self.reason = str(error)
            else:
                self.up.set()

    async def _send_all_trials(self) -> None:
        """Send one request of the run per model; once all succeed, they are not sent again after a downtime.

        If the server keeps failing on such a request, a probe takes its place.
        """
        for request in self.trials:
            try:
                await self._retry(partial(send_trial, self.client, request, self.probe(request.model)))
            except TransientError as error:
                if error.kind in ("connection", "busy") or isinstance(error, UnusableLogprobs):
                    raise
                # Perhaps only this prompt makes the server fail.
                await self._retry(partial(self.client.negotiate_parameters, self.probe(request.model)))
        self._tried = True

    async def _retry(self, action: Callable[[], Awaitable[None]]) -> None:
        """Run an action, and retry it after transient errors, within the policy's retries and ``policy.wait`` seconds.

        A failed connection is raised at once, and the server counts as down. A reply that asks to wait is not counted
        as an attempt.

        Raises:
            TransientError: the last error.
        """
        job, start = Job((0,), probe_request("")), monotonic()
        pauses = 0
        reminder = asyncio.create_task(self._remind_user())
        try:
            while True:
                try:
                    await action()
                    return
                except TransientError as error:
                    pauses += 1
                    job.attempts += error.kind != "busy"
                    pause = max(self.policy.pause(job, pauses), error.retry_after or 0.0)
                    left = start + self.policy.wait - monotonic()
                    is_final = error.kind == "connection" or isinstance(error, UnusableLogprobs)
                    if is_final or job.attempts > self.policy.retries or left <= 0:
                        raise
                    self.reason = str(error)
                await asyncio.sleep(min(pause, left))
        finally:
            reminder.cancel()

    async def _remind_user(self) -> None:
        """Print from time to time that the server has not answered yet; runs until cancelled."""
        start = monotonic()
        for pause in itertools.chain(_REMINDER_PAUSES, itertools.repeat(_REMINDER_PAUSES[-1])):
            await asyncio.sleep(pause)
            self.client.notice(
                f"still waiting for {self.client.url}, {monotonic() - start:.0f} s so far: {self.reason} "
                f"(each try may take {self.policy.timeout:g} s, --timeout, and there are {self.policy.retries} more, "
                "--retries)"
            )

    async def _check_models(self) -> bool:
        """Request the models; mark the server as down if that fails. Return whether it is up."""
        try:
            await self._refresh_models()
        except ServerError as error:
            self.mark_down(str(error), None)
        return self.up.is_set()

    async def _refresh_models(self) -> None:
        """Request the models and check that those of the run are there, with the recorded hashes.

        Raises:
            ServerError: a model is missing or has another hash. TransientError, Refusal: as ``Client.models``.
        """
        listed = await self.client.models()
        if listed is None:  # The server has no such list: assume that it has the requested models.
            listed = [self.served.get(name, ServedModel(name=name)) for name in self._models]
        served = {model.name: model for model in listed}
        if missing := [self.client.served_name(name) for name in self._models if name not in served]:
            raise ServerError(
                f"{self.client.url} has no model {', '.join(map(repr, missing))}; it has: {', '.join(served) or 'none'}"
            )
        for name, expected in self.hashes.items():
            if (actual := served[name].hash) != expected:
                raise ServerError(f"{self.client.url} holds another {name} by now: {actual} instead of {expected}")
        self.served = served

"""Whether one server of a run answers, and what it has: meeting it, noticing that it went, and waiting for it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from time import monotonic

from harness.client.error_response import Fault, Refusal
from harness.client.http_client import Client
from harness.client.request import ChatRequest, Request, TokenRequest, greeting
from harness.client.retry import Job, Policy
from harness.client.server_log import root_cause
from harness.core.errors import ServerError
from harness.runs.schema import ServedModel

_LONGEST_PROBE_PAUSE = 5.0
_SAID_AFTER = (10.0, 60.0)
"""Seconds until it is said that a server has not answered its first request, and between later reminders."""


class NoSystemRole(ServerError):
    """A server or a chat template takes a prompt of the run only without its system message."""


@dataclass(frozen=True)
class TextSample:
    """The text of a prompt, where the token ids behind it are not those of a chat that could be sent."""

    model: str
    text: str


class Presence:
    """One server of a run. ``up`` is set while it answers.

    Attributes:
        served: the models that it lists, by name.
        version: of the server's software, as it says; None where it does not.
        hashes: by model, the content hash that the run was begun with, where servers give one.
        samples: chat requests, or texts, with the token ids that the run sends instead; a server that reads them
            otherwise is treated as unavailable.
        trials: a request of the run for each model, by which is found what the server takes.
        on_down: told when it goes, with the model whose request showed it (None for any).
    """

    def __init__(self, client: Client, models: Sequence[str], policy: Policy) -> None:
        self.client = client
        self.policy = policy
        self.served: dict[str, ServedModel] = {}
        self.version: str | None = None
        self.hashes: dict[str, str] = {}
        self.samples: tuple[tuple[ChatRequest | TextSample, list[int]], ...] = ()
        self.trials: tuple[Request, ...] = ()
        self.up = asyncio.Event()
        self.down_since = monotonic()
        self.reason = "it has not answered its first request"
        self.on_down: Callable[[Presence, str | None], None] = lambda presence, model: None
        self._models = tuple(models)
        self._tried = False
        self._check: asyncio.Task[bool] | None = None

    async def greet(self) -> None:
        """Learn what the server has.

        Raises:
            ServerError: it does not answer, is not OpenAI-compatible, or lacks a model of the run.
        """
        try:
            await self._patiently(self._list)
        except (Fault, Refusal) as error:
            raise self._foreign(error) from None
        self.version = await self.client.version()
        self.up.set()

    async def try_out(self) -> None:
        """Ask one request of the run for each model (``trials``), so that what the server does not take is known.

        Raises:
            NoSystemRole: it refuses system messages. ServerError: it does not answer.
        """
        try:
            for request in self.trials:
                await self._try_patiently(request)
        except (Fault, Refusal) as error:
            raise self._foreign(error) from None
        self._tried = True

    def greeting(self, model: str) -> Request:
        """The smallest request by the run's route; a model without a chat template can be asked by token ids alone."""
        trial = next((request for request in self.trials if request.model == model), None)
        if isinstance(trial, TokenRequest):
            return TokenRequest(model, (trial.prompts[0][:1],), 1, None)
        return greeting(model)

    async def _try_patiently(self, request: Request) -> None:
        try:
            await self._patiently(partial(self._try, request))
        except Fault as fault:
            if fault.kind in ("connection", "busy"):
                raise
            # Only this prompt may be what fails.
            await self._patiently(partial(self.client.negotiate, self.greeting(request.model)))

    async def _try(self, request: Request) -> None:
        try:
            await self.client.negotiate(request)
            return
        except Refusal as refusal:
            if refusal.is_systematic:
                raise
            why = str(refusal)
            plain = None if refusal.is_context or not isinstance(request, ChatRequest) else request.without_system()
        if plain is not None and await self._takes(plain):
            raise NoSystemRole(f"{self.client.url} takes no system message for {request.model!r} ({why})")
        # Only this prompt may be what is refused.
        await self.client.negotiate(self.greeting(request.model))

    async def _takes(self, request: Request) -> bool:
        try:
            await self.client.negotiate(request)
        except Refusal:
            return False
        return True

    def _foreign(self, error: ServerError) -> ServerError:
        if isinstance(error, Fault) and error.kind == "busy":
            return ServerError(f"{self.client.url} was busy for {self.policy.wait:g} s (--wait): {error}")
        if isinstance(error, Refusal) and error.ends_run:
            return ServerError(f"{self.client.url} refuses this user: {error}")
        if isinstance(error, Refusal) and error.lacks_template:
            return ServerError(
                f"{self.client.url} has no chat template for its model: start it with one (bench serve MODEL -- "
                f"--chat-template FILE), or ask an adapter that brings its own along by --api completions ({error})"
            )
        return ServerError(f"{self.client.url} is not answering as an OpenAI-compatible server: {error}")

    async def check_samples(self) -> None:
        """Make sure that the server reads chats, or texts, as the token ids that are sent instead.

        Raises:
            Fault, Refusal: it does not say. ServerError: it reads them otherwise.
        """
        for request, ids in self.samples:
            if isinstance(request, TextSample):
                read = await self.client.tokenize_text(request.model, request.text)
            else:
                read = await self.client.tokenize(request)
            if read != ids:
                raise ServerError(f"{self.client.url} reads prompts for {request.model} as other tokens than this run")

    async def answers(self) -> bool:
        """Whether the server still lists its models; many that ask at once share one look."""
        if self._check is None or self._check.done():
            self._check = asyncio.create_task(self._look())
        return await asyncio.shield(self._check)

    def explain(self) -> str:
        """Return why the server does not answer, and the root cause that its log names where this machine has it."""
        cause = root_cause(self.client.log) if self.client.log is not None else None
        return self.reason if cause is None else f"{self.reason}; its log {self.client.log} says: {cause}"

    def fall(self, reason: str, model: str | None) -> None:
        """Take the server for away."""
        self.reason = reason
        if self.up.is_set():
            self.up.clear()
            self.down_since = monotonic()
            self.on_down(self, model)

    async def recover(self, model: str | None) -> None:
        """Look until the server answers again; with ``model``, until it also answers a request for it."""
        pause = 0.1
        while not self.up.is_set():
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PROBE_PAUSE)
            try:
                await self._list()
                if not self._tried:
                    for request in self.trials:
                        await self._try_patiently(request)
                    self._tried = True
                await self.check_samples()
                if model is not None:
                    await self.client.ask(self.greeting(model))
                self.version = await self.client.version() or self.version
            except ServerError as error:
                self.reason = str(error)
            else:
                self.up.set()

    async def _patiently(self, action: Callable[[], Awaitable[None]]) -> None:
        """Repeat what fails in a way that may pass; a server that nobody can connect to is not waited for here.

        Being told to wait is no attempt, but is not obeyed for longer than ``policy.wait``.
        """
        job, start = Job((0,), greeting("")), monotonic()
        pauses = 0
        reminder = asyncio.create_task(self._remind())
        try:
            while True:
                try:
                    await action()
                    return
                except Fault as fault:
                    pauses += 1
                    job.attempts += fault.kind != "busy"
                    pause = max(self.policy.pause(job, pauses), fault.retry_after or 0.0)
                    left = start + self.policy.wait - monotonic()
                    if fault.kind == "connection" or job.attempts > self.policy.retries or left <= 0:
                        raise
                    self.reason = str(fault)
                await asyncio.sleep(min(pause, left))
        finally:
            reminder.cancel()

    async def _remind(self) -> None:
        """Say from time to time that the server has not answered yet; runs until cancelled."""
        start = monotonic()
        for pause in itertools.chain(_SAID_AFTER, itertools.repeat(_SAID_AFTER[-1])):
            await asyncio.sleep(pause)
            self.client.notice(
                f"still waiting for {self.client.url}, {monotonic() - start:.0f} s so far: {self.reason} "
                f"(each try may take {self.policy.timeout:g} s, --timeout, and there are {self.policy.retries} more, "
                "--retries)"
            )

    async def _look(self) -> bool:
        try:
            await self._list()
        except ServerError as error:
            self.fall(str(error), None)
        return self.up.is_set()

    async def _list(self) -> None:
        listed = await self.client.models()
        if listed is None:  # It has no list; it answers, and knows its models.
            listed = [self.served.get(name, ServedModel(name=name)) for name in self._models]
        served = {model.name: model for model in listed}
        if missing := [name for name in self._models if name not in served]:
            raise ServerError(
                f"{self.client.url} has no model {', '.join(map(repr, missing))}; it has: {', '.join(served) or 'none'}"
            )
        for name, wanted in self.hashes.items():
            if (found := served[name].hash) != wanted:
                raise ServerError(f"{self.client.url} holds another {name} by now: {found} instead of {wanted}")
        self.served = served

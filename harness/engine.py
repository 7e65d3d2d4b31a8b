"""The engine of a run: keeps the servers busy with the plan, through whatever fails, and stores every answer."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress

from harness.client import ChatRequest
from harness.endpoint import Endpoint, GivenUp, Job, Lost, Policy
from harness.errors import RunError
from harness.grid import Grid
from harness.plan import Draw, Plan
from harness.predictions import PredictionLog
from harness.progress import Board, Display, Tally
from harness.prompt import Message
from harness.queueing import Work
from harness.records import AugmentationRecord, Outcome, PredictionRecord, RunConfig
from harness.replies import Refusal, Reply
from harness.servers import Servers

COMMIT_SECONDS = 0.5
"""Predictions are durable after at most this long (and the time that the disk takes)."""
_DRAIN_SECONDS = 30.0


_NOTICES = 20


class Engine:
    """Keeps the servers busy with the plan's open predictions and stores what they answer."""

    def __init__(
        self, plan: Plan, config: RunConfig, endpoints: Sequence[Endpoint], log: PredictionLog, display: Display
    ) -> None:
        self.plan = plan
        self.board = Board(Tally(model.name, plan.per_model) for model in config.models)
        self.answered_as: dict[str, set[str]] = {model.name: set() for model in config.models}
        self._config = config
        self._limits = {model.name: model.max_tokens for model in config.models}
        self._endpoints = endpoints
        self._log = log
        self._display = display
        self._refusals: set[str] = set()
        self._said_no_logprobs = False
        self._open: dict[int, Draw] = {}
        """What was built and is not stored yet."""
        self._done = bytearray(len(plan))
        for key in log.done():
            number = plan.number(key)
            if number is None or self._done[number]:
                kind = "is not part of this run" if number is None else "is there twice"
                raise RunError(f"{log.path}: prediction {key} {kind}; the file was changed by hand or mixed up")
            self._done[number] = 1
            self.board.tallies[key[0]].done += 1

    async def run(self, models_at_once: int, policy: Policy) -> None:
        """Sample until all is done, a signal comes, or nothing more can be done."""
        work = Work(self._jobs(models_at_once))
        async with asyncio.TaskGroup() as group:
            tasks: list[asyncio.Task[None]] = []

            def spawn(job: Coroutine[object, object, None]) -> None:
                tasks.append(group.create_task(job))

            servers = Servers(self._endpoints, policy, spawn, self._display.notice)
            self.board.in_flight = lambda: work.in_flight
            self.board.seconds_left = lambda: servers.seconds_left
            spawn(self._display.show(self.board))
            spawn(work.build_ahead())
            spawn(self._commit_often())
            for endpoint in self._endpoints:
                for _ in range(min(policy.max_in_flight, len(self.plan))):
                    spawn(self._work_on(endpoint, work))
            with _on_interrupt(lambda: self._drain(work, spawn)):
                await work.over.wait()
            for task in tasks:
                task.cancel()

    def _jobs(self, models_at_once: int) -> Iterator[Job]:
        ways = {model.name: (model.prompt, model.encoder) for model in self._config.models}
        key: tuple[int, tuple[str, str]] | None = None
        messages: tuple[Message, ...] = ()
        for number in self.plan.order(models_at_once):
            if self._done[number]:
                continue
            draw = self.plan.draw(number)
            # Models that are asked together share their prompts.
            if key != (key := (number % self.plan.per_model, ways[draw.model])):
                messages = self.plan.askers[draw.model].messages(draw)
            self._open[number] = draw
            seed = draw.seed if self._config.temperature > 0 else None
            yield Job(number, ChatRequest(draw.model, messages, self._limits[draw.model], seed))

    async def _work_on(self, endpoint: Endpoint, work: Work) -> None:
        while True:
            await endpoint.up.wait()
            job = await work.take()
            try:
                self._store(job, await endpoint.ask(job))
            except Lost:
                work.give_back(job)
                continue
            except Refusal as refusal:
                self._fail(job, "refused", str(refusal))
            except GivenUp as error:
                self._fail(job, "error", str(error))
            work.finish()

    def _store(self, job: Job, reply: Reply | None) -> None:
        draw = self._open[job.number]
        if reply is None:
            self._record(draw, "too_long", None, None)
            return
        self.answered_as[draw.model].add(reply.model)
        if reply.cumulative_logprob is None and reply.text and not self._said_no_logprobs:
            self._said_no_logprobs = True
            self._display.notice("the server gives no log-probabilities; tied votes count by their expectation")
        outcome: Outcome = "truncated"
        grid = None
        if reply.finish_reason != "length":
            outcome, grid = self.plan.askers[draw.model].read(reply.text, draw.augmentation)
        self._record(draw, outcome, grid, reply)

    def _fail(self, job: Job, outcome: Outcome, reason: str) -> None:
        if reason not in self._refusals and len(self._refusals) < _NOTICES:
            self._refusals.add(reason)
            self._display.notice(f"{outcome}: {reason}")
        self._record(self._open[job.number], outcome, None, None)

    def _record(self, draw: Draw, outcome: Outcome, grid: Grid | None, reply: Reply | None) -> None:
        view = draw.augmentation
        record = PredictionRecord(
            model=draw.model,
            task_id=draw.task.id,
            test_index=draw.test_index,
            sample_index=draw.sample_index,
            augmentation=AugmentationRecord(symmetry=view.symmetry, colours=list(view.colours), order=list(view.order)),
            outcome=outcome,
            grid=None if grid is None else grid.to_rows(),
            text=None if reply is None else reply.text,
            cumulative_logprob=None if reply is None else reply.cumulative_logprob,
            n_tokens=None if reply is None else reply.n_tokens,
            finish_reason=None if reply is None else reply.finish_reason,
            seed=draw.seed,
            seconds=0.0 if reply is None else reply.seconds,
        )
        self._log.append(record)
        self._done[draw.number] = 1
        del self._open[draw.number]
        right = draw.task.test[draw.test_index].output
        self.board.tallies[draw.model].add(record, None if right is None else grid == right)

    async def _commit_often(self) -> None:
        while True:
            await asyncio.sleep(COMMIT_SECONDS)
            await asyncio.to_thread(self._log.commit)

    def _drain(self, work: Work, spawn: Callable[[Coroutine[object, object, None]], None]) -> None:
        """Let what is in flight finish; a second signal, or too long a wait, leaves it."""

        async def give_up() -> None:
            await asyncio.sleep(_DRAIN_SECONDS)
            work.over.set()

        if not work.stopped:
            work.stop()
            self._display.notice(f"stopping: waiting for {work.in_flight} requests in flight; Ctrl-C again leaves them")
            spawn(give_up())
        else:
            work.over.set()


@contextmanager
def _on_interrupt(action: Callable[[], None]) -> Iterator[None]:
    """Call ``action`` on SIGINT and SIGTERM; does nothing outside the main thread, which alone may handle signals."""
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)
    with suppress(ValueError, RuntimeError):
        for number in signals:
            loop.add_signal_handler(number, action)
    try:
        yield
    finally:
        with suppress(ValueError, RuntimeError):
            for number in signals:
                loop.remove_signal_handler(number)

"""The engine of a run: keeps the servers busy with the plan, through whatever fails, and stores every answer."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import orjson

from harness.client.error_response import Refusal
from harness.client.job_queue import JobQueue, ServerSlots
from harness.client.response import Reply
from harness.client.retry import Divide, GivenUp, Job, Lost, RetryPolicy
from harness.client.server import Server
from harness.client.server_pool import ServerPool
from harness.core.errors import RunError
from harness.core.grid import Grid
from harness.prompts.reasoning import ends_in_thought
from harness.runs.prediction_log import PredictionLog
from harness.runs.prediction_reader import read_predictions
from harness.runs.schema import Outcome, RunConfig
from harness.sampling.plan import Plan, Sample
from harness.sampling.progress_display import Display, ProgressBoard
from harness.sampling.request_builder import RequestBuilder
from harness.sampling.round_scheduler import RoundScheduler
from harness.scoring.unmeasured_models import UnmeasuredModelCheck
from harness.voting.early_stopping import run_schedule
from harness.voting.live_tally import ModelTally

COMMIT_SECONDS = 0.5
"""Predictions are durable after at most this long (and the time that the disk takes)."""
_DRAIN_SECONDS = 30.0
_NOTICES = 20
"""Different reasons of failure that are shown."""
_MORE = "further reasons are not shown; predictions.jsonl has every such prediction as refused or error"
Spawn = Callable[[Coroutine[object, object, None]], None]


class Engine:
    """Keeps the servers busy with the plan's open predictions and stores what they answer."""

    def __init__(
        self,
        plan: Plan,
        config: RunConfig,
        asking: RequestBuilder,
        servers: Sequence[Server],
        log: PredictionLog,
        display: Display,
        answered_as: Mapping[str, Collection[str]],
    ) -> None:
        """``answered_as`` has the names under which servers answered in earlier sessions, by model."""
        self.plan = plan
        self.board = ProgressBoard(ModelTally(model.name, plan.per_model, config.n) for model in config.models)
        self.answered_as: dict[str, set[str]] = {m.name: set(answered_as.get(m.name, ())) for m in config.models}
        self.warnings: list[str] = []
        """What was noticed that the report is to tell."""
        self._asking = asking
        self._endpoints = servers
        self._log = log
        self._display = display
        self._refusals: set[str] = set()
        self._said: set[str] = set()
        self._limits = {model.name: model.max_tokens for model in config.models}
        self._open: dict[int, Sample] = {}
        """What was built and is not stored yet."""
        self._done = bytearray(len(plan))
        self._remember()
        self.watch = UnmeasuredModelCheck(self.board.tallies.values(), self._limits)
        schedule = run_schedule(config)
        self._rounds = None if schedule is None else RoundScheduler(plan, schedule, self._done)
        if self._rounds is not None:
            for number in self._rounds.complete():
                self._go_on(self._rounds, self.plan.sample(number))

    def _remember(self) -> None:
        """Take in what earlier sessions stored.

        Raises:
            DataError, RunError: a line of the file is no prediction of this run, or there twice.
        """
        for answer in read_predictions(self._log.path):
            key = (answer.model, answer.task_id, answer.test_index, answer.sample)
            number = self.plan.number(key)
            if number is None or self._done[number]:
                kind = "is not part of this run" if number is None else "is there twice"
                raise RunError(f"{self._log.path}: prediction {key} {kind}; the file was changed by hand or mixed up")
            self._done[number] = 1
            truth = self.plan.truth(number)
            tally = self.board.tallies[answer.model]
            tally.add((answer.task_id, answer.test_index), truth, answer.outcome, answer.grid, answer.mean_logprob)

    async def run(self, models_at_once: int, policy: RetryPolicy, save: Callable[[], None]) -> None:
        """Sample until all is done, a signal comes, or nothing more can be done.

        ``save`` is called before predictions are committed, to keep what this session learned beside them.
        """
        size = self._asking.size(policy.max_in_flight)
        work = JobQueue(self._jobs(models_at_once, size), size)
        async with asyncio.TaskGroup() as group:
            tasks: set[asyncio.Task[None]] = set()

            def spawn(job: Coroutine[object, object, None]) -> None:
                task = group.create_task(job)
                tasks.add(task)
                task.add_done_callback(tasks.discard)

            servers = ServerPool(self._endpoints, policy, spawn, self._display.notice)
            self.board.in_flight = lambda model: work.by_model[model]
            self.board.seconds_left = lambda: servers.seconds_left
            spawn(self._display.show(self.board))
            spawn(work.build_ahead())
            spawn(self._commit_often(save))
            for server in self._endpoints:
                spawn(self._feed(server, work, ServerSlots(policy.max_in_flight, size), spawn))
            with _on_interrupt(lambda number: self._drain(work, spawn, number)):
                await work.finished.wait()
            for task in tuple(tasks):
                task.cancel()

    def _jobs(self, models_at_once: int, size: int) -> Iterator[Job | None]:
        """What is to be asked, in order; a request is for up to ``size`` predictions of one model and test output."""
        source = self.plan if self._rounds is None else self._rounds
        for block in source.blocks(models_at_once, size):
            draws = [self.plan.sample(number) for number in block if not self._done[number]]
            if draws:
                self._open.update((draw.number, draw) for draw in draws)
                yield Job(tuple(draw.number for draw in draws), self._asking.request(draws))
            elif self._rounds is not None:
                yield None

    async def _feed(self, server: Server, work: JobQueue, room: ServerSlots, spawn: Spawn) -> None:
        """Give a server what is due, as long as it has room."""
        while True:
            await room.wait_until_free()
            await server.wait_until_ready()
            job = await work.take_job()
            room.acquire(len(job.numbers))
            spawn(self._ask(server, work, room, job))

    async def _ask(self, server: Server, work: JobQueue, room: ServerSlots, job: Job) -> None:
        """One request from sending to storing."""
        remaining: list[Job] = []
        try:
            for place, reply in enumerate(await server.answer_job(job)):
                if reply is not None and reply.aborted:
                    remaining.append(job.select_prompt(place))
                else:
                    self._store(self._open[job.numbers[place]], reply)
        except Lost:
            remaining = [job]
        except Divide:
            remaining = [job.select_prompt(place) for place in range(len(job.numbers))]
        except Refusal as refusal:
            self._fail(job, "refused", str(refusal))
        except GivenUp as error:
            self._fail(job, "error", str(error))
        room.release(len(job.numbers))
        work.finish_job(job, remaining)

    def _store(self, draw: Sample, reply: Reply | None) -> None:
        if reply is None:
            self._record(draw, "too_long", None, None)
            return
        if reply.model not in (names := self.answered_as[draw.model]):
            names.add(reply.model)
            if len(names) > 1:
                by = " and ".join(sorted(names))
                self._say_once(f"warning: {draw.model} was answered by {by}: swapped during the run")
        if reply.cumulative_logprob is None and reply.text:
            self._say_once("the server gives no log-probabilities; tied votes count by their expectation")
        if reply.only_reasoning or (reply.truncated and ends_in_thought(reply.text)):
            limit = self._limits[draw.model]
            self._say_once(
                f"warning: {draw.model} thinks before it answers, and some of its answers are empty or cut off at "
                f"{limit} tokens; --max-tokens gives it more, --chat-template-kwargs '{{\"enable_thinking\": false}}' "
                "turns thinking off where its template can"
            )
        outcome: Outcome = "truncated"
        grid = None
        if not reply.truncated:
            outcome, grid = self.plan.formats[draw.model].read(reply.text, draw.augmentation)
        self._record(draw, outcome, grid, reply)

    def _say_once(self, text: str) -> None:
        """Show a line the first time; warnings are also kept for the report."""
        if text not in self._said:
            self._said.add(text)
            self._display.notice(text)
            if text.startswith("warning: "):
                self.warnings.append(text.removeprefix("warning: "))

    def _fail(self, job: Job, outcome: Outcome, reason: str) -> None:
        if reason not in self._refusals and len(self._refusals) <= _NOTICES:
            self._refusals.add(reason)
            shown = len(self._refusals) <= _NOTICES
            self._display.notice(f"{outcome}: {reason}" if shown else _MORE)
        self.watch.note(job.request.model, reason)
        for number in job.numbers:
            self._record(self._open[number], outcome, None, None)

    def _record(self, draw: Sample, outcome: Outcome, grid: Grid | None, reply: Reply | None) -> None:
        self._log.append_line(prediction_line(draw, outcome, grid, reply))
        self._done[draw.number] = 1
        del self._open[draw.number]
        tally = self.board.tallies[draw.model]
        tally.answered += 1
        logprob = None if reply is None else reply.mean_logprob
        tally.add((draw.task.id, draw.test_index), draw.task.test[draw.test_index].output, outcome, grid, logprob)
        if grid is None:
            self.watch.check(tally)
        if self._rounds is not None and self._rounds.answered(draw.number):
            self._go_on(self._rounds, draw)

    def _go_on(self, rounds: RoundScheduler, draw: Sample) -> None:
        """Ask for more of a test output whose round is complete, or leave it."""
        tally, output = self.board.tallies[draw.model], (draw.task.id, draw.test_index)
        standing = tally.open_outputs[output]
        if spared := rounds.next(draw.number, standing.votes.values(), standing.failures):
            tally.stop_output(output, spared)

    async def _commit_often(self, save: Callable[[], None]) -> None:
        while True:
            await asyncio.sleep(COMMIT_SECONDS)
            save()
            await asyncio.to_thread(self._log.commit)

    def _drain(self, work: JobQueue, spawn: Spawn, number: int) -> None:
        """Let what is in flight finish; too long a wait, or Ctrl-C after the first signal, leaves it.

        SIGTERM after the first signal changes nothing: who started this process may pass on what the terminal has sent
        to all of its processes already.
        """

        async def give_up() -> None:
            await asyncio.sleep(_DRAIN_SECONDS)
            work.finished.set()

        if not work.stopped:
            work.stop()
            self._display.notice(
                f"stopping: waiting for {work.in_flight} predictions in flight; Ctrl-C again leaves them"
            )
            spawn(give_up())
        elif number == signal.SIGINT:
            work.finished.set()


@contextmanager
def _on_interrupt(action: Callable[[int], None]) -> Iterator[None]:
    """Call ``action`` with the number of each SIGINT and SIGTERM; nothing outside the main thread, which alone may."""
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)
    with suppress(ValueError, RuntimeError):
        for number in signals:
            loop.add_signal_handler(number, action, number)
    try:
        yield
    finally:
        with suppress(ValueError, RuntimeError):
            for number in signals:
                loop.remove_signal_handler(number)


def prediction_line(draw: Sample, outcome: Outcome, grid: Grid | None, reply: Reply | None) -> bytes:
    """The line of predictions.jsonl for a draw: a ``PredictionRecord`` as JSON, without the cost of validating it.

    Args:
        grid: the answer in the original orientation and colours; None unless ``outcome`` is ``grid``.
        reply: what came; None where nothing was sent or answered.
    """
    view = draw.augmentation
    row = {
        "model": draw.model,
        "task_id": draw.task.id,
        "test_index": draw.test_index,
        "sample_index": draw.sample_index,
        "augmentation": {"symmetry": view.symmetry, "colours": view.colours, "order": view.order},
        "outcome": outcome,
        "grid": None if grid is None else grid.to_rows(),
        "text": None if reply is None else reply.text,
        "cumulative_logprob": None if reply is None else reply.cumulative_logprob,
        "n_tokens": None if reply is None else reply.n_tokens,
        "finish_reason": None if reply is None else reply.finish_reason,
        "seed": draw.seed,
        "seconds": 0.0 if reply is None else reply.seconds,
    }
    return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)

"""The engine of a run: keep the servers busy with its jobs until all are answered or nothing more can be."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Generic, Protocol, TypeVar

from harness.client.pool.job_queue import JobQueue, ServerSlots
from harness.client.pool.retry import Divide, GivenUp, Job, Lost, RequestT, RetryPolicy
from harness.client.pool.server import Answer, AnswerT, JobServer
from harness.client.pool.server_pool import ServerPool
from harness.client.protocol.error_response import Refusal
from harness.core.deadline import Deadline
from harness.runs.schemas.prediction_schema import Outcome
from harness.sampling.progress_display import Display, ProgressBoard

COMMIT_SECONDS = 0.5
"""A prediction is on disk at most this long (and the time that the disk takes) after its answer."""
_DRAIN_SECONDS = 30.0
"""How long a run that is stopped waits for the requests in flight."""
DEADLINE_DRAIN_SECONDS = 5.0
"""How long a run waits for the requests in flight after its deadline."""
Spawn = Callable[[Coroutine[object, object, None]], None]


AnswerT_contra = TypeVar("AnswerT_contra", bound=Answer, contravariant=True)


class Workload(Protocol[RequestT, AnswerT_contra]):
    """What a run requests, and what becomes of the answers. A number identifies one prompt of a job."""

    @property
    def board(self) -> ProgressBoard:
        """The counts of each model, for the display."""

    def prompts_per_request(self, max_in_flight: int) -> int:
        """Return how many prompts may share a request."""

    def jobs(self, models_at_once: int, size: int) -> Iterator[Job[RequestT] | None]:
        """Yield the jobs that depend on no answer, for up to ``size`` prompts; None if answers must come first."""

    def record_replies(self, replies: Sequence[tuple[int, AnswerT_contra | None]]) -> list[Job[RequestT]]:
        """Record the answers of one job by number (None: the prompt is too long); return the jobs that follow."""

    def record_failure(self, numbers: Sequence[int], outcome: Outcome, reason: str) -> None:
        """Record that the prompts of a job have no answer."""

    def commit(self) -> None:
        """Write to disk what was recorded; may be called in another thread."""


class Engine(Generic[RequestT, AnswerT]):
    """Sends a run's jobs to the servers and has their answers recorded.

    One task per server takes jobs from a queue as long as the server has free slots; one task per job sends it and
    records the answers, or returns the job to the queue.
    """

    def __init__(
        self, work: Workload[RequestT, AnswerT], servers: Sequence[JobServer[RequestT, AnswerT]], display: Display
    ) -> None:
        self._work = work
        self._servers = servers
        self._display = display
        self._deadline_passed = False
        """Whether the deadline, and not the user, stopped the run."""

    async def run(
        self, models_at_once: int, policy: RetryPolicy, save: Callable[[], None], deadline: Deadline | None = None
    ) -> bool:
        """Sample until everything is answered, the deadline passes, or the user interrupts.

        Args:
            models_at_once: how many models' requests are mixed.
            save: called before each commit, to write the manifest.
            deadline: after it no request is begun, and those in flight get DEADLINE_DRAIN_SECONDS; None for no limit.

        Returns:
            Whether the deadline stopped the run. What was in flight may have completed it all the same.

        Raises:
            RunError: no server answers for ``policy.wait``, a model gives no answers, or a file cannot be written.
            ServerError: a server refuses every request.
            ExceptionGroup: of these, if several occur at once.
        """
        size = self._work.prompts_per_request(policy.max_in_flight)
        queue = JobQueue(self._work.jobs(models_at_once, size), size)
        async with asyncio.TaskGroup() as group:
            tasks: set[asyncio.Task[None]] = set()

            def spawn(coroutine: Coroutine[object, object, None]) -> None:
                task = group.create_task(coroutine)
                tasks.add(task)
                task.add_done_callback(tasks.discard)

            pool = ServerPool(self._servers, policy, spawn, self._display.notice)
            board = self._work.board
            board.in_flight = lambda model: queue.in_flight_by_model[model]
            board.seconds_left = lambda: pool.seconds_left
            board.deadline = deadline
            if deadline is not None:  # before the servers get jobs, as it may have passed
                spawn(self._stop_at(deadline, queue))
            spawn(self._display.show(board))
            spawn(queue.build_ahead())
            spawn(self._commit_periodically(save))
            for server in self._servers:
                spawn(self._feed_server(server, queue, ServerSlots(policy.max_in_flight, size), spawn))
            with _on_interrupt(lambda number: self._stop(queue, spawn, number)):
                await queue.finished.wait()
            for task in tuple(tasks):
                task.cancel()
        return self._deadline_passed

    async def _feed_server(
        self, server: JobServer[RequestT, AnswerT], queue: JobQueue[RequestT], slots: ServerSlots, spawn: Spawn
    ) -> None:
        """Give a server jobs as long as it has free slots; runs until cancelled."""
        while True:
            await slots.wait_until_free()
            await server.wait_until_ready()
            job = await queue.take_job()
            slots.acquire(len(job.numbers))
            spawn(self._process_job(server, queue, slots, job))

    async def _process_job(
        self, server: JobServer[RequestT, AnswerT], queue: JobQueue[RequestT], slots: ServerSlots, job: Job[RequestT]
    ) -> None:
        """Send a job to a server and record its answers; return prompts without an answer to the queue."""
        remaining: list[Job[RequestT]] = []
        follow_ups: list[Job[RequestT]] = []
        try:
            replies = await server.answer_job(job)
            aborted = [reply is not None and reply.aborted for reply in replies]
            remaining = [job.select_prompt(index) for index, is_aborted in enumerate(aborted) if is_aborted]
            answered = zip(job.numbers, replies, aborted, strict=True)
            follow_ups = self._work.record_replies([(number, reply) for number, reply, lost in answered if not lost])
        except Lost:
            remaining = [job]
        except Divide:
            remaining = [job.select_prompt(index) for index in range(len(job.numbers))]
        except Refusal as refusal:
            self._work.record_failure(job.numbers, "refused", str(refusal))
        except GivenUp as error:
            self._work.record_failure(job.numbers, "error", str(error))
        slots.release(len(job.numbers))
        queue.finish_job(job, remaining, follow_ups)

    async def _commit_periodically(self, save: Callable[[], None]) -> None:
        """Write the manifest and the new predictions to disk twice a second; runs until cancelled."""
        while True:
            await asyncio.sleep(COMMIT_SECONDS)
            save()
            await asyncio.to_thread(self._work.commit)

    async def _stop_at(self, deadline: Deadline, queue: JobQueue[RequestT]) -> None:
        """Begin no request after the deadline, and end the run once those in flight are answered or their time is up.

        A run that the user has stopped before also ends then.
        """
        if (seconds := deadline.seconds_left) > 0:
            await asyncio.sleep(seconds)
        self._deadline_passed = not queue.stopped
        queue.stop()
        if queue.in_flight:
            seconds = DEADLINE_DRAIN_SECONDS
            self._display.notice(f"the deadline has passed: {queue.in_flight} answers in flight get {seconds:g} s")
            await asyncio.sleep(seconds)
        queue.finished.set()

    def _stop(self, queue: JobQueue[RequestT], spawn: Spawn, number: int) -> None:
        """Handle SIGINT or SIGTERM: wait for the requests in flight; give them up on a second SIGINT or after 30 s.

        A second SIGTERM changes nothing: a parent process may forward a signal that the terminal has already sent to
        all processes of the group.
        """

        async def finish_after_limit() -> None:
            await asyncio.sleep(_DRAIN_SECONDS)
            queue.finished.set()

        if not queue.stopped:
            queue.stop()
            self._display.notice(f"stopping: waiting for {queue.in_flight} answers in flight; Ctrl-C again leaves them")
            spawn(finish_after_limit())
        elif number == signal.SIGINT:
            queue.finished.set()


@contextmanager
def _on_interrupt(action: Callable[[int], None]) -> Iterator[None]:
    """Call ``action`` with the signal's number on each SIGINT and SIGTERM.

    Outside the main thread, where Python allows no signal handlers, this does nothing.
    """
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

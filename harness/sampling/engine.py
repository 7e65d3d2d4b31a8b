"""The engine of a run: keep the servers busy with the plan's samples until all are answered or nothing more can be."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress

from harness.client.error_response import Refusal
from harness.client.job_queue import JobQueue, ServerSlots
from harness.client.retry import Divide, GivenUp, Job, Lost, RetryPolicy
from harness.client.server import Server
from harness.client.server_pool import ServerPool
from harness.runs.prediction_schema import Outcome
from harness.sampling.plan import Plan, Sample
from harness.sampling.progress_display import Display
from harness.sampling.recording import PredictionRecorder
from harness.sampling.request_builder import RequestBuilder

COMMIT_SECONDS = 0.5
"""A prediction is on disk at most this long (and the time that the disk takes) after its answer."""
_DRAIN_SECONDS = 30.0
"""How long a run that is stopped waits for the requests in flight."""
Spawn = Callable[[Coroutine[object, object, None]], None]


class Engine:
    """Sends the plan's open samples to the servers and records their answers.

    One task per server takes jobs from a queue as long as the server has free slots; one task per job sends it and
    records the answers, or returns the job to the queue.
    """

    def __init__(
        self,
        plan: Plan,
        builder: RequestBuilder,
        servers: Sequence[Server],
        recorder: PredictionRecorder,
        display: Display,
    ) -> None:
        self._plan = plan
        self._builder = builder
        self._servers = servers
        self._recorder = recorder
        self._display = display
        self._open: dict[int, Sample] = {}
        """Samples by number whose requests were built and that are not recorded yet."""

    async def run(self, models_at_once: int, policy: RetryPolicy, save: Callable[[], None]) -> None:
        """Sample until everything is answered or the user interrupts.

        Args:
            models_at_once: how many models' requests are mixed.
            save: called before each commit, to write the manifest.

        Raises:
            RunError: no server answers for ``policy.wait``, a model gives no answers, or a file cannot be written.
            ServerError: a server refuses every request.
            ExceptionGroup: of these, if several occur at once.
        """
        size = self._builder.prompts_per_request(policy.max_in_flight)
        queue = JobQueue(self._jobs(models_at_once, size), size)
        async with asyncio.TaskGroup() as group:
            tasks: set[asyncio.Task[None]] = set()

            def spawn(coroutine: Coroutine[object, object, None]) -> None:
                task = group.create_task(coroutine)
                tasks.add(task)
                task.add_done_callback(tasks.discard)

            pool = ServerPool(self._servers, policy, spawn, self._display.notice)
            board = self._recorder.board
            board.in_flight = lambda model: queue.in_flight_by_model[model]
            board.seconds_left = lambda: pool.seconds_left
            spawn(self._display.show(board))
            spawn(queue.build_ahead())
            spawn(self._commit_periodically(save))
            for server in self._servers:
                spawn(self._feed_server(server, queue, ServerSlots(policy.max_in_flight, size), spawn))
            with _on_interrupt(lambda number: self._stop(queue, spawn, number)):
                await queue.finished.wait()
            for task in tuple(tasks):
                task.cancel()

    def _jobs(self, models_at_once: int, size: int) -> Iterator[Job | None]:
        """Yield a job for every sample without a prediction, in order; None if answers decide what comes next."""
        rounds = self._recorder.rounds
        source = self._plan if rounds is None else rounds
        for block in source.blocks(models_at_once, size):
            samples = [self._plan.sample(number) for number in block if not self._recorder.done[number]]
            if samples:
                self._open.update((sample.number, sample) for sample in samples)
                numbers = tuple(sample.number for sample in samples)
                yield Job(numbers, self._builder.build_request(samples))
            elif rounds is not None:
                yield None

    async def _feed_server(self, server: Server, queue: JobQueue, slots: ServerSlots, spawn: Spawn) -> None:
        """Give a server jobs as long as it has free slots; runs until cancelled."""
        while True:
            await slots.wait_until_free()
            await server.wait_until_ready()
            job = await queue.take_job()
            slots.acquire(len(job.numbers))
            spawn(self._process_job(server, queue, slots, job))

    async def _process_job(self, server: Server, queue: JobQueue, slots: ServerSlots, job: Job) -> None:
        """Send a job to a server and record its answers, or return what remains of it to the queue."""
        remaining: list[Job] = []
        try:
            for index, reply in enumerate(await server.answer_job(job)):
                if reply is not None and reply.aborted:
                    remaining.append(job.select_prompt(index))
                else:
                    self._recorder.record_reply(self._open.pop(job.numbers[index]), reply)
        except Lost:
            remaining = [job]
        except Divide:
            remaining = [job.select_prompt(index) for index in range(len(job.numbers))]
        except Refusal as refusal:
            self._record_failure(job, "refused", str(refusal))
        except GivenUp as error:
            self._record_failure(job, "error", str(error))
        slots.release(len(job.numbers))
        queue.finish_job(job, remaining)

    def _record_failure(self, job: Job, outcome: Outcome, reason: str) -> None:
        """Record that the samples of a job have no answer."""
        self._recorder.record_failure([self._open.pop(number) for number in job.numbers], outcome, reason)

    async def _commit_periodically(self, save: Callable[[], None]) -> None:
        """Write the manifest and the new predictions to disk twice a second; runs until cancelled."""
        while True:
            await asyncio.sleep(COMMIT_SECONDS)
            save()
            await asyncio.to_thread(self._recorder.commit)

    def _stop(self, queue: JobQueue, spawn: Spawn, number: int) -> None:
        """Handle SIGINT or SIGTERM: wait for the requests in flight; give them up on a second SIGINT or after 30 s.

        A second SIGTERM changes nothing: a parent process may forward a signal that the terminal has already sent to
        all processes of the group.
        """

        async def finish_after_limit() -> None:
            await asyncio.sleep(_DRAIN_SECONDS)
            queue.finished.set()

        if not queue.stopped:
            queue.stop()
            self._display.notice(
                f"stopping: waiting for {queue.in_flight} predictions in flight; Ctrl-C again leaves them"
            )
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

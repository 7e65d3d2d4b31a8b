"""The jobs of a run between the code that builds requests and the servers that take them."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from typing import Generic

from harness.client.pool.retry import Job, RequestT

_PREDICTIONS_AHEAD = 64
"""Predictions whose requests are built before a server asks for them."""


class ServerSlots:
    """Free places for predictions in flight at one server.

    Args:
        count: free places at the beginning.
        required: places that must be free before the server takes another job.
    """

    def __init__(self, count: int, required: int) -> None:
        self._free, self._required = count, required
        self._available = asyncio.Event()
        self.release(0)

    def acquire(self, count: int) -> None:
        """Occupy places, even more than are free, so that a large job is never stuck."""
        self.release(-count)

    def release(self, count: int) -> None:
        """Free places."""
        self._free += count
        if self._free >= self._required:
            self._available.set()
        else:
            self._available.clear()

    async def wait_until_free(self) -> None:
        """Return once enough places for another job are free."""
        await self._available.wait()


class JobQueue(Generic[RequestT]):
    """Hands out jobs to servers and takes back those that must be retried.

    The order is: jobs that follow from answers, jobs that were returned, new ones; isolated jobs
    (harness.client.pool.retry) last, one at a time.

    Args:
        jobs: yields new jobs; None where further jobs depend on answers that are still in flight.
        size: how many predictions most jobs are for.

    Attributes:
        finished: set when every job is done, or when the queue was stopped, nothing is in flight any more and no
            answer has a job that follows from it.
        stopped: whether ``stop`` was called.
        in_flight_by_model: number of predictions in flight by model.
    """

    def __init__(self, jobs: Iterator[Job[RequestT] | None], size: int = 1) -> None:
        self.finished = asyncio.Event()
        self.stopped = False
        self.in_flight_by_model: Counter[str] = Counter()
        self._target_length = max(2, _PREDICTIONS_AHEAD // size)
        self._jobs = jobs
        self._ready: deque[Job[RequestT]] = deque()
        self._follow_ups: deque[Job[RequestT]] = deque()
        self._returned: deque[Job[RequestT]] = deque()
        self._isolated: deque[Job[RequestT]] = deque()
        self._exhausted = False
        """``jobs`` has ended."""
        self._awaits_answers = False
        """``jobs`` has yielded None, and no job was finished since."""
        self._changed = asyncio.Event()
        """There may be a job for those that wait in ``take_job``."""
        self._below_target = asyncio.Event()
        """``build_ahead`` has something to do."""

    @property
    def in_flight(self) -> int:
        """Number of predictions that were handed out and are not finished."""
        return self.in_flight_by_model.total()

    async def take_job(self) -> Job[RequestT]:
        """Return the next job; wait until there is one, as jobs in flight may come back to the queue."""
        while True:
            if (job := self._next_job()) is not None:
                self.in_flight_by_model[job.request.model] += len(job.numbers)
                return job
            self._update_finished()
            self._changed.clear()
            await self._changed.wait()

    def finish_job(
        self, job: Job[RequestT], returned: Iterable[Job[RequestT]] = (), follow_ups: Iterable[Job[RequestT]] = ()
    ) -> None:
        """Record that a job is no longer in flight.

        Args:
            returned: jobs to put back into the queue: the job itself, or jobs for some of its prompts.
            follow_ups: jobs that complete what its answers began; they are handed out even after ``stop``.
        """
        self._follow_ups.extend(follow_ups)
        for other in returned:
            (self._isolated if other.is_isolated else self._returned).append(other)
        self.in_flight_by_model[job.request.model] -= len(job.numbers)
        if self._awaits_answers:
            self._awaits_answers = False
            self._below_target.set()
            self._changed.set()
        if self._follow_ups or self._returned or self._isolated:
            self._changed.set()
        self._update_finished()

    def stop(self) -> None:
        """Hand out no further jobs, except those that follow from answers."""
        self.stopped = True
        self._update_finished()

    async def build_ahead(self) -> None:
        """Keep some jobs ready, built while the servers are busy; runs until cancelled."""
        while True:
            if len(self._ready) >= self._target_length or self._exhausted or self._awaits_answers:
                self._below_target.clear()
                await self._below_target.wait()
            elif (job := self._build_job()) is not None:
                self._ready.append(job)
            await asyncio.sleep(0)  # answers that have arrived are processed first

    def _next_job(self) -> Job[RequestT] | None:
        """Return the job to hand out now, or None if there is none at present."""
        if self._follow_ups:
            return self._follow_ups.popleft()
        if self.stopped:
            return None
        if self._returned:
            return self._returned.popleft()
        if len(self._ready) <= self._target_length // 2:
            self._below_target.set()
        if (job := self._ready.popleft() if self._ready else self._build_job()) is not None:
            return job
        return self._isolated.popleft() if self._isolated and self.in_flight == 0 else None

    def _build_job(self) -> Job[RequestT] | None:
        """Return a new job, or None if there is none at present."""
        if self._exhausted or self._awaits_answers:
            return None
        try:
            job = next(self._jobs)
        except StopIteration:
            self._exhausted = True
            return None
        self._awaits_answers = job is None
        return job

    def _update_finished(self) -> None:
        """Set ``finished`` if no job is left or in flight."""
        idle = self.stopped or (self._exhausted and not (self._ready or self._returned or self._isolated))
        if idle and self.in_flight == 0 and not self._follow_ups:
            self.finished.set()

"""The work of a run between those who build requests and those who send them; nothing is lost between the two."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Iterable, Iterator

from harness.client.retry import Job

_AHEAD = 64
"""Predictions whose requests are built ahead of their sending."""


class Room:
    """How many more predictions one server may be given.

    Args:
        places: in all.
        least: how many must be free before another job is taken.
    """

    def __init__(self, places: int, least: int) -> None:
        self._free, self._least = places, least
        self._enough = asyncio.Event()
        self.add(0)

    def add(self, places: int) -> None:
        """Places become free, or are taken where negative."""
        self._free += places
        if self._free >= self._least:
            self._enough.set()
        else:
            self._enough.clear()

    async def wait(self) -> None:
        """Until there is room for a job."""
        await self._enough.wait()


class Work:
    """Jobs to be done. ``over`` is set when all are, or when it was stopped and those in flight are done.

    Args:
        jobs: what is to be done; None where there is more, but not before something is answered.
        size: how many predictions most jobs are for.

    Attributes:
        by_model: predictions in flight.
    """

    def __init__(self, jobs: Iterator[Job | None], size: int = 1) -> None:
        self.over = asyncio.Event()
        self.by_model: Counter[str] = Counter()
        self._ahead = max(2, _AHEAD // size)
        self._jobs = jobs
        self._ready: deque[Job] = deque()
        self._returned: deque[Job] = deque()
        self._suspects: deque[Job] = deque()
        """What servers may die of: asked one by one, when nothing else is left."""
        self._exhausted = False
        self._dry = False
        self.stopped = False
        self._more = asyncio.Event()
        self._low = asyncio.Event()

    async def take(self) -> Job:
        """The next job; waits while there is none but some in flight may come back."""
        while True:
            if (job := self._next()) is not None:
                self.by_model[job.request.model] += len(job.numbers)
                return job
            self._settle()
            self._more.clear()
            await self._more.wait()

    @property
    def in_flight(self) -> int:
        """Predictions that were taken and are not done."""
        return self.by_model.total()

    def finish(self, job: Job, remaining: Iterable[Job] = ()) -> None:
        """A job that was taken is done, but for what is to be done by whoever is free."""
        for other in remaining:
            (self._suspects if other.is_suspect else self._returned).append(other)
        self.by_model[job.request.model] -= len(job.numbers)
        if self._dry:
            self._dry = False
            self._low.set()
            self._more.set()
        if self._returned or self._suspects:
            self._more.set()
        self._settle()

    def stop(self) -> None:
        """Hand out no more."""
        self.stopped = True
        self._settle()

    async def build_ahead(self) -> None:
        """Keep some jobs ready, built while the servers are busy; runs until cancelled."""
        while True:
            if len(self._ready) >= self._ahead or self._exhausted or self._dry:
                self._low.clear()
                await self._low.wait()
            elif (job := self._build()) is not None:
                self._ready.append(job)
            # Answers that have arrived go first.
            await asyncio.sleep(0)

    def _next(self) -> Job | None:
        if self.stopped:
            return None
        if self._returned:
            return self._returned.popleft()
        if len(self._ready) <= self._ahead // 2:
            self._low.set()
        if (job := self._ready.popleft() if self._ready else self._build()) is not None:
            return job
        return self._suspects.popleft() if self._suspects and self.in_flight == 0 else None

    def _build(self) -> Job | None:
        if self._exhausted or self._dry:
            return None
        try:
            job = next(self._jobs)
        except StopIteration:
            self._exhausted = True
            return None
        self._dry = job is None
        return job

    def _settle(self) -> None:
        idle = self.stopped or (self._exhausted and not (self._ready or self._returned or self._suspects))
        if idle and self.in_flight == 0:
            self.over.set()

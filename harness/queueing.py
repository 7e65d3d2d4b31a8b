"""The work of a run between those who build requests and those who send them; nothing is lost between the two."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator

from harness.endpoint import Job

_AHEAD = 64


class Work:
    """Jobs to be done. ``over`` is set when all are, or when it was stopped and those in flight are done."""

    def __init__(self, jobs: Iterator[Job]) -> None:
        self.over = asyncio.Event()
        self.in_flight = 0
        self._jobs = jobs
        self._ready: deque[Job] = deque()
        self._returned: deque[Job] = deque()
        self._exhausted = False
        self.stopped = False
        self._more = asyncio.Event()
        self._low = asyncio.Event()

    async def take(self) -> Job:
        """The next job; waits while there is none but some in flight may come back."""
        while True:
            if (job := self._next()) is not None:
                self.in_flight += 1
                return job
            self._settle()
            self._more.clear()
            await self._more.wait()

    def finish(self) -> None:
        """A job that was taken is done."""
        self.in_flight -= 1
        self._settle()

    def give_back(self, job: Job) -> None:
        """A job that was taken is for another to do."""
        self._returned.append(job)
        self.in_flight -= 1
        self._more.set()
        self._settle()

    def stop(self) -> None:
        """Hand out no more."""
        self.stopped = True
        self._settle()

    async def build_ahead(self) -> None:
        """Keep some jobs ready, built while the servers are busy; runs until cancelled."""
        while True:
            if len(self._ready) >= _AHEAD or self._exhausted:
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
        if len(self._ready) <= _AHEAD // 2:
            self._low.set()
        return self._ready.popleft() if self._ready else self._build()

    def _build(self) -> Job | None:
        job = next(self._jobs, None)
        self._exhausted = job is None
        return job

    def _settle(self) -> None:
        idle = self.stopped or (self._exhausted and not self._ready and not self._returned)
        if idle and self.in_flight == 0:
            self.over.set()

"""Which predictions of a run are due: the first round of every test output, then what its answers call for."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Collection, Iterator, Sequence

from harness.sampling.plan import Plan
from harness.voting.early_stopping import Schedule


class RoundScheduler:
    """Deals out the predictions of a run round by round. What is due depends on answers only, never on their order.

    Args:
        done: by number, 1 where a prediction was made.
    """

    def __init__(self, plan: Plan, schedule: Schedule, done: bytearray) -> None:
        self._plan, self._schedule, self._done = plan, schedule, done
        self._models = len(plan) // plan.per_model
        self._released: list[deque[int]] = [deque() for _ in range(self._models)]
        ends = (*schedule.round_ends, schedule.n)
        outputs = range(0, len(plan), schedule.n)
        # A draw that was made was due: its round is the one to be completed.
        drawn = (done.rfind(1, start, start + schedule.n) + 1 - start for start in outputs)
        self._due = array("i", (ends[bisect_left(ends, max(count, 0))] for count in drawn))
        self._first = self._due[:]
        self._missing = array(
            "i", (end - sum(done[start : start + end]) for start, end in zip(outputs, self._due, strict=True))
        )
        self._open = sum(self._missing[i] > 0 or end < schedule.n for i, end in enumerate(self._due))

    def complete(self) -> list[int]:
        """The test outputs (the number of their first draw) whose round an earlier session completed; see ``next``."""
        n = self._schedule.n
        return [i * n for i, missing in enumerate(self._missing) if not missing and self._due[i] < n]

    def answered(self, number: int) -> bool:
        """Note an answer; true where it completes a round of its test output, so that ``next`` is to be asked."""
        output = number // self._schedule.n
        self._missing[output] -= 1
        if self._missing[output] == 0 and self._due[output] == self._schedule.n:
            self._open -= 1
        return self._missing[output] == 0 and self._due[output] < self._schedule.n

    def next(self, number: int, votes: Collection[int], failures: int) -> int:
        """What follows a completed round: another one, or nothing.

        Args:
            number: any draw of the test output.
            votes: how many predictions gave each distinct grid.

        Returns:
            How many of its draws are spared, 0 where another round follows.
        """
        output = number // self._schedule.n
        drawn = self._due[output]
        due = self._schedule.required_samples(list(votes), failures)
        if due == drawn:
            self._open -= 1
            return self._schedule.n - drawn
        self._due[output], self._missing[output] = due, due - drawn
        start = output * self._schedule.n
        self._released[start // self._plan.per_model].extend(range(start + drawn, start + due))
        return 0

    def blocks(self, models_at_once: int, size: int) -> Iterator[Sequence[int]]:
        """What to ask for, in blocks of up to ``size`` for one request; an empty one while answers are waited for.

        Every test output of a group of models gets its first round before any of them gets its second, so that
        a server stays full; a group's later rounds come before the next group's first.
        """
        group = 0
        for block in self._plan.blocks(models_at_once, size):
            while block[0] // self._plan.per_model >= group + models_at_once:
                group += models_at_once
            yield from self._later(range(group), size)
            if due := [number for number in block if self._wanted(number)]:
                yield due
        while self._open:
            yield from self._later(range(self._models), size)
            # What was released while others were dealt out goes first: to wait then could be to wait for nothing.
            if self._open and not any(self._released):
                yield ()

    def _wanted(self, number: int) -> bool:
        output, sample = divmod(number, self._schedule.n)
        return sample < self._first[output] and not self._done[number]

    def _later(self, models: range, size: int) -> Iterator[Sequence[int]]:
        """Draws of later rounds; those of several test outputs of a model share a request."""
        for model in models:
            released = self._released[model]
            while released:
                yield [released.popleft() for _ in range(min(size, len(released)))]

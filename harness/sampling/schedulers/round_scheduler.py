"""Which samples of a run with early stopping are requested: the first round of every test output, then further rounds.

A round is a block of consecutive samples of one test output (harness.voting.early_stopping). When all samples of a
round are answered, the stopping rule decides from their votes whether the output gets another round.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Collection, Iterator, Sequence

from harness.sampling.plan import Plan
from harness.voting.early_stopping import Schedule


class RoundScheduler:
    """Releases the samples of a run round by round. What is requested depends on the answers, never on their order.

    Args:
        done: by sample number, 1 if the sample has a prediction. It is shared with the caller, who sets it.
    """

    def __init__(self, plan: Plan, schedule: Schedule, done: bytearray) -> None:
        self._plan, self._schedule, self._done = plan, schedule, done
        self._models = len(plan) // plan.per_model
        self._released: list[deque[int]] = [deque() for _ in range(self._models)]
        """By model, samples of later rounds that are not requested yet."""
        ends = (*schedule.round_ends, schedule.n)
        outputs = range(0, len(plan), schedule.n)
        # A sample that was drawn had been requested: its round is the one to complete.
        drawn = (done.rfind(1, start, start + schedule.n) + 1 - start for start in outputs)
        self._round_end = array("i", (ends[bisect_left(ends, max(count, 0))] for count in drawn))
        """By test output, how many samples its rounds so far have."""
        self._first_end = self._round_end[:]
        self._unanswered = array(
            "i", (end - sum(done[start : start + end]) for start, end in zip(outputs, self._round_end, strict=True))
        )
        """By test output, samples of its rounds so far that are not answered."""
        self._undecided = sum(self._unanswered[i] > 0 or end < schedule.n for i, end in enumerate(self._round_end))
        """Test outputs that need or may need further samples."""

    def completed_rounds(self) -> list[int]:
        """Return the first number of each test output whose round an earlier session completed without a decision.

        ``decide_next_round`` must be called for each.
        """
        n = self._schedule.n
        return [i * n for i, missing in enumerate(self._unanswered) if not missing and self._round_end[i] < n]

    def record_answer(self, number: int) -> bool:
        """Count an answer; return whether it completes a round, so that ``decide_next_round`` must be called."""
        output = number // self._schedule.n
        self._unanswered[output] -= 1
        if self._unanswered[output] == 0 and self._round_end[output] == self._schedule.n:
            self._undecided -= 1
        return self._unanswered[output] == 0 and self._round_end[output] < self._schedule.n

    def decide_next_round(self, number: int, votes: Collection[int], failures: int) -> int:
        """Apply the stopping rule to a test output with a completed round, and release its next round if there is one.

        Args:
            number: any sample of the test output.
            votes: the number of predictions of each distinct grid.
            failures: the number of predictions without a grid.

        Returns:
            How many samples of the output are skipped: 0 if another round follows.
        """
        output = number // self._schedule.n
        drawn = self._round_end[output]
        end = self._schedule.required_samples(list(votes), failures)
        if end == drawn:
            self._undecided -= 1
            return self._schedule.n - drawn
        self._round_end[output], self._unanswered[output] = end, end - drawn
        start = output * self._schedule.n
        self._released[start // self._plan.per_model].extend(range(start + drawn, start + end))
        return 0

    def blocks(self, models_at_once: int, size: int) -> Iterator[Sequence[int]]:
        """Yield the numbers of the samples to request, one block per request.

        A block is empty while the next samples depend on answers that have not arrived.

        Every test output of a group of models gets its first round before any of them gets its second, so that the
        servers stay busy; a group's later rounds come before the next group's first, but not if the plan is in rounds.

        Args:
            models_at_once: models per group.
            size: samples per block at most.
        """
        group_start = 0
        for block in self._plan.blocks(models_at_once, size):
            while not self._plan.in_rounds and block[0] // self._plan.per_model >= group_start + models_at_once:
                group_start += models_at_once
            yield from self._released_blocks(range(group_start), size)
            if requested := [number for number in block if self._is_requested(number)]:
                yield requested
        while self._undecided:
            yield from self._released_blocks(range(self._models), size)
            # Answers during the loop above may have released more: waiting could then be waiting for nothing.
            if self._undecided and not any(self._released):
                yield ()

    def _is_requested(self, number: int) -> bool:
        """Return whether a sample belongs to its output's first round of this session and has no prediction."""
        output, sample_index = divmod(number, self._schedule.n)
        return sample_index < self._first_end[output] and not self._done[number]

    def _released_blocks(self, models: range, size: int) -> Iterator[Sequence[int]]:
        """Yield samples of later rounds; those of several test outputs of one model may share a block."""
        for model in models:
            released = self._released[model]
            while released:
                yield [released.popleft() for _ in range(min(size, len(released)))]

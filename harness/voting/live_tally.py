"""What has come of a run so far: predictions, failures by kind, and the votes on every test output."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from harness.core.grid import Grid
from harness.voting.ranking import top_k_probability

Output = tuple[str, int]
"""A test output: (task id, test index)."""


class OutputTally:
    """The votes on one test output so far, by grid; grids are told apart by their 64-bit hashes, to save memory."""

    __slots__ = ("_logprobs", "_truth", "drawn", "failures", "votes")

    def __init__(self, truth: Grid | None) -> None:
        self.votes: dict[int, int] = {}
        """How many predictions gave each distinct grid."""
        self.failures = 0
        self.drawn = 0
        """Predictions so far, failures included."""
        self._logprobs: dict[int, float] | None = {}
        self._truth = None if truth is None else hash(truth)

    def add(self, grid: Grid | None, mean_logprob: float | None) -> None:
        """Count a prediction; ``grid`` is None for a failure."""
        self.drawn += 1
        if grid is None:
            self.failures += 1
            return
        key = hash(grid)
        self.votes[key] = self.votes.get(key, 0) + 1
        if self._logprobs is not None and mean_logprob is not None:
            self._logprobs[key] = self._logprobs.get(key, 0.0) + mean_logprob
        else:
            self._logprobs = None  # one that is unknown leaves counts alone to decide

    def probability_in_top(self, k: int) -> float | None:
        """The chance that the right grid is among the k best by count, then mean log-probability; None if unknown."""
        if self._truth is None:
            return None
        if self._truth not in self.votes:
            return 0.0
        keys = [self._key(grid) for grid in self.votes]
        own = self._key(self._truth)
        return top_k_probability(sum(key > own for key in keys), keys.count(own) - 1, k)

    def _key(self, grid: int) -> tuple[int, float]:
        count = self.votes[grid]
        return count, 0.0 if self._logprobs is None else self._logprobs[grid] / count


@dataclass
class ModelTally:
    """The predictions of one model so far.

    Args:
        n: how many are due for each test output.
    """

    model: str
    total: int
    n: int
    done: int = 0
    """With those of earlier sessions of the run."""
    answered: int = 0
    """Those of this session."""
    begun: int = 0
    """Test outputs that have predictions."""
    failures: Counter[str] = field(default_factory=Counter)
    open_outputs: dict[Output, OutputTally] = field(default_factory=dict)
    """Test outputs that were begun and lack predictions."""
    _changed: set[Output] = field(default_factory=set)
    _shares: dict[Output, float] = field(default_factory=dict)

    def add(
        self, output: Output, truth: Grid | None, outcome: str, grid: Grid | None, mean_logprob: float | None
    ) -> None:
        """Count a prediction for a test output whose right answer is ``truth`` (None where nobody knows)."""
        self.done += 1
        if outcome != "grid":
            self.failures[outcome] += 1
        standing = self.open_outputs.get(output)
        if standing is None:
            standing = self.open_outputs[output] = OutputTally(truth)
            self.begun += 1
        standing.add(grid, mean_logprob)
        self._changed.add(output)
        if standing.drawn >= self.n:
            self._count(output)
            del self.open_outputs[output]

    def stop_output(self, output: Output, spared: int) -> None:
        """Ask no more of a test output; so many of its predictions are not due any longer."""
        self.total -= spared
        self._count(output)
        del self.open_outputs[output]

    def vote_2(self) -> float | None:
        """vote_2 as it stands on the outputs begun, averaged as in the results; None where no answer is known."""
        for output in tuple(self._changed):
            self._count(output)
        tasks: dict[str, list[float]] = {}
        for (task_id, _), share in self._shares.items():
            tasks.setdefault(task_id, []).append(share)
        means = [sum(shares) / len(shares) for shares in tasks.values()]
        return sum(means) / len(means) if means else None

    def _count(self, output: Output) -> None:
        self._changed.discard(output)
        if (share := self.open_outputs[output].probability_in_top(2)) is not None:
            self._shares[output] = share

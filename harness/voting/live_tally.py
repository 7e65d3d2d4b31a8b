"""Running totals of a run in progress: predictions or views, failures by kind, and the votes on every test output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from harness.core.grid import Grid
from harness.runs.schemas.prediction_schema import OutputKey
from harness.voting.ranking import top_k_probability


class OutputTally:
    """The votes on one test output so far. Grids are identified by their 64-bit hashes, to save memory."""

    __slots__ = ("_logprobs", "_truth", "drawn", "failures", "votes")

    def __init__(self, truth: Grid | None) -> None:
        self.votes: dict[int, int] = {}
        """Number of votes by hash of the grid."""
        self.failures = 0
        self.drawn = 0
        """Number of predictions or views, failures included."""
        self._logprobs: dict[int, float] | None = {}
        """Sum of mean log-probabilities by hash of the grid; None as soon as one is unknown: then counts decide."""
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
            self._logprobs = None

    def add_view(self, proposals: Sequence[tuple[Grid, float | None]]) -> None:
        """Count a view, which has one vote for each distinct grid that it proposes.

        Args:
            proposals: its grids with their log-probabilities per token, likeliest first.
        """
        distinct: dict[Grid, float | None] = {}
        for grid, mean_logprob in proposals:
            distinct.setdefault(grid, mean_logprob)
        drawn = self.drawn + 1
        for grid, mean_logprob in distinct.items():
            self.add(grid, mean_logprob)
        if not distinct:
            self.add(None, None)
        self.drawn = drawn

    def probability_in_top(self, k: int) -> float | None:
        """Return vote_k of the predictions so far; None if the right answer is unknown.

        It is the probability that the right grid is in the top k by count, then mean log-probability, when ties are
        broken at random.
        """
        if self._truth is None:
            return None
        if self._truth not in self.votes:
            return 0.0
        keys = [self._sort_key(grid) for grid in self.votes]
        truth_key = self._sort_key(self._truth)
        return top_k_probability(sum(key > truth_key for key in keys), keys.count(truth_key) - 1, k)

    def _sort_key(self, grid: int) -> tuple[int, float]:
        """Return (count, mean log-probability), by which grids are ranked."""
        count = self.votes[grid]
        return count, 0.0 if self._logprobs is None else self._logprobs[grid] / count


@dataclass
class ModelTally:
    """The predictions of one model so far."""

    model: str
    total: int
    """Predictions that the run makes of this model."""
    n: int
    """Predictions that it makes for each test output."""
    done: int = 0
    """Predictions so far, with those of earlier sessions of the run."""
    answered: int = 0
    """Predictions of this session."""
    begun: int = 0
    """Test outputs that have predictions."""
    failures: Counter[str] = field(default_factory=Counter)
    open_outputs: dict[OutputKey, OutputTally] = field(default_factory=dict)
    """Test outputs that have some of their predictions."""
    _changed: set[OutputKey] = field(default_factory=set)
    """Test outputs whose entry in ``_votes`` is out of date."""
    _votes: dict[OutputKey, float] = field(default_factory=dict)
    """vote_2 by test output."""

    def add(
        self, output: OutputKey, truth: Grid | None, outcome: str, grid: Grid | None, mean_logprob: float | None
    ) -> None:
        """Count a prediction for a test output whose right answer is ``truth`` (None if unknown)."""
        tally = self._count(output, truth, None if outcome == "grid" else outcome)
        tally.add(grid, mean_logprob)
        self._note_change(output, tally)

    def add_view(
        self, output: OutputKey, truth: Grid | None, failure: str | None, proposals: Sequence[tuple[Grid, float | None]]
    ) -> None:
        """Count a view of a test output.

        Args:
            failure: why it proposes no grid; None if it does.
            proposals: its grids with their log-probabilities per token, likeliest first.
        """
        tally = self._count(output, truth, failure)
        tally.add_view(proposals)
        self._note_change(output, tally)

    def _count(self, output: OutputKey, truth: Grid | None, failure: str | None) -> OutputTally:
        """Count a prediction or view, and return the tally of its test output."""
        self.done += 1
        if failure is not None:
            self.failures[failure] += 1
        tally = self.open_outputs.get(output)
        if tally is None:
            tally = self.open_outputs[output] = OutputTally(truth)
            self.begun += 1
        return tally

    def _note_change(self, output: OutputKey, tally: OutputTally) -> None:
        """Note that a test output has another vote, which is final if all of its predictions or views are there."""
        self._changed.add(output)
        if tally.drawn >= self.n:
            self._update_vote(output)
            del self.open_outputs[output]

    def stop_output(self, output: OutputKey, skipped: int) -> None:
        """Record that early stopping ended a test output and skips this many of its predictions."""
        self.total -= skipped
        self._update_vote(output)
        del self.open_outputs[output]

    def vote_2(self) -> float | None:
        """Return vote_2 of the test outputs begun, averaged as in the results; None if no right answer is known."""
        for output in tuple(self._changed):
            self._update_vote(output)
        votes_by_task: dict[str, list[float]] = {}
        for (task_id, _), vote in self._votes.items():
            votes_by_task.setdefault(task_id, []).append(vote)
        means = [sum(votes) / len(votes) for votes in votes_by_task.values()]
        return sum(means) / len(means) if means else None

    def _update_vote(self, output: OutputKey) -> None:
        """Recompute vote_2 of a test output."""
        self._changed.discard(output)
        if (vote := self.open_outputs[output].probability_in_top(2)) is not None:
            self._votes[output] = vote

"""The metrics of one test output, and their averages: over predictions, then outputs of a task, then tasks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.core.grid import Grid
from harness.voting.ranking import Vote, probability_in_top, rank_votes
from harness.voting.subset_curves import pass_at_k, vote_at_m

METRICS = ("accuracy", "correct_size", "correct_pixels", "pass_n", "vote_1", "vote_2", "unanswered")
"""Names in the order of every table; all lie in [0, 1]."""

STRICT_METRICS = ("pass_n", "vote_1", "vote_2")
"""Metrics with a strict figure: every output of the task is right."""

LOWER_IS_BETTER = frozenset({"unanswered"})

OUTPUTS_MULTIPLE = 12
"""The least common multiple of 1–4, the numbers of outputs a task may have."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class OutputScore:
    """What the n predictions for one test output scored; ``exact`` + sum(``wrong``) + ``failures`` = ``n``."""

    n: int
    exact: int
    wrong: tuple[int, ...]
    """Votes on each distinct wrong grid, descending."""
    failures: int
    correct_size: float
    correct_pixels: float
    vote_1: float
    vote_2: float

    @property
    def accuracy(self) -> float:
        """Exact predictions / n."""
        return self.exact / self.n

    @property
    def pass_n(self) -> float:
        """1 if any of the n predictions is exact."""
        return float(self.exact > 0)

    @property
    def unanswered(self) -> float:
        """Failures / n."""
        return self.failures / self.n

    def values(self) -> tuple[float, ...]:
        """All metrics in the order of METRICS."""
        rates = (self.accuracy, self.correct_size, self.correct_pixels)
        return (*rates, self.pass_n, self.vote_1, self.vote_2, self.unanswered)


@dataclass(frozen=True, slots=True)
class TaskScores:
    """The metrics of a set of tasks, in the order of their ids.

    ``values`` has shape (len(METRICS), tasks) and holds each task's mean over its outputs; ``per_output``
    is the mean over all outputs (Kaggle's figure), ``strict`` the share of tasks with every output right
    (for STRICT_METRICS). ``denominator`` makes whole numbers of the values wherever no tie was split.
    """

    ids: tuple[str, ...]
    values: Floats
    per_output: dict[str, float]
    strict: dict[str, float]
    denominator: int

    def of(self, metric: str) -> Floats:
        """The tasks' values of one metric."""
        values: Floats = self.values[METRICS.index(metric)]
        return values


def score_output(
    predictions: Sequence[Grid | None],
    truth: Grid,
    n: int | None = None,
    mean_logprobs: Sequence[float | None] | None = None,
) -> OutputScore:
    """Score the predictions for one test output; any order gives the same result.

    Args:
        predictions: a grid in the original orientation and colours each, None for a failure.
        truth: the exact output.
        n: predictions that were due; those not given are missing and count as failures.
        mean_logprobs: for each prediction the mean log-probability of its tokens, None where unknown.

    Raises:
        ValueError: more predictions than n, none due, or the two lists differ in length.
    """
    due = len(predictions) if n is None else n
    logprobs = [None] * len(predictions) if mean_logprobs is None else mean_logprobs
    if due < 1 or len(predictions) > due:
        raise ValueError(f"{len(predictions)} predictions were given where {due} were due")
    pairs = zip(predictions, logprobs, strict=True)
    return score_votes([Vote(grid, logprob) for grid, logprob in pairs if grid is not None], truth, due)


def score_votes(votes: Sequence[Vote], truth: Grid, n: int) -> OutputScore:
    """Score the predictions for one test output that have a grid; the rest of the n count as failures.

    Raises:
        ValueError: more votes than n, or none due.
    """
    if n < 1 or len(votes) > n:
        raise ValueError(f"{len(votes)} predictions were given where {n} were due")
    groups = rank_votes(votes)
    same_size = [group for group in groups if group.grid.shape == truth.shape]
    pixels = math.fsum(group.count * equal_cells(group.grid, truth) for group in same_size)
    wrong = sorted((group.count for group in groups if group.grid != truth), reverse=True)
    return OutputScore(
        n=n,
        exact=len(votes) - sum(wrong),
        wrong=tuple(wrong),
        failures=n - len(votes),
        correct_size=sum(group.count for group in same_size) / n,
        correct_pixels=pixels / n,
        vote_1=probability_in_top(groups, truth, 1),
        vote_2=probability_in_top(groups, truth, 2),
    )


def equal_cells(grid: Grid, truth: Grid) -> float:
    """The share of equal cells, 0 where the shapes differ."""
    if grid.shape != truth.shape:
        return 0.0
    equal = np.frombuffer(grid.cells, np.uint8) == np.frombuffer(truth.cells, np.uint8)
    return int(np.count_nonzero(equal)) / len(truth.cells)


def average(outputs: Mapping[str, Sequence[OutputScore]]) -> TaskScores:
    """Average the outputs of each task.

    Args:
        outputs: by task id, every test output of every declared task (``score_output([], truth, n)`` for
            one without predictions).

    Raises:
        ValueError: no task, or a task without an output.
    """
    ids = tuple(sorted(outputs))
    if not ids or not all(outputs[task] for task in ids):
        raise ValueError("every declared task needs the score of at least one test output")
    rows = {task: np.array([score.values() for score in outputs[task]]) for task in ids}
    values = np.stack([rows[task].mean(axis=0) for task in ids], axis=1)
    every = np.concatenate([rows[task] for task in ids])
    # Ties of different outputs are drawn independently, so that the chances multiply.
    strict = np.mean([rows[task].prod(axis=0) for task in ids], axis=0)
    return TaskScores(
        ids=ids,
        values=values,
        per_output=dict(zip(METRICS, every.mean(axis=0).tolist(), strict=True)),
        strict={name: float(strict[METRICS.index(name)]) for name in STRICT_METRICS},
        denominator=OUTPUTS_MULTIPLE * math.lcm(*{score.n for task in ids for score in outputs[task]}),
    )


def task_curves(outputs: Mapping[str, Sequence[OutputScore]], sizes: Sequence[int]) -> dict[str, Floats]:
    """Exact curves over subset sizes: ``pass_n`` is pass@k, ``vote_1`` and ``vote_2`` are vote_k@m.

    Ties in a curve are ties of counts alone, so that its last point may differ from the metric itself,
    which asks the log-probabilities first.

    Args:
        outputs: as for ``average``, all with the same n.
        sizes: subset sizes, each in [1, n].

    Returns:
        Arrays of shape (len(sizes), tasks), tasks in the order of their ids.
    """
    curves = {name: np.empty((len(sizes), len(outputs))) for name in STRICT_METRICS}
    for column, task in enumerate(sorted(outputs)):
        scores = outputs[task]
        passed = [pass_at_k(s.n, [s.exact], sizes)[:, 0] for s in scores]
        voted = [vote_at_m(s.exact, s.wrong, s.failures, sizes) for s in scores]
        curves["pass_n"][:, column] = np.mean(passed, axis=0)
        for row, name in enumerate(("vote_1", "vote_2")):
            curves[name][:, column] = np.mean([vote[row] for vote in voted], axis=0)
    return curves


def selection_ratio(vote_2: float, pass_n: float) -> float | None:
    """vote_2 / pass_n, what voting keeps of what sampling found; None where nothing was found."""
    return vote_2 / pass_n if pass_n > 0 else None

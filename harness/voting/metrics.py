"""Metrics of test outputs, averaged first over the test outputs of a task, then over tasks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.core.grid import Grid
from harness.stats.bootstrap import Floats
from harness.voting.ranking import Vote, probability_in_top, rank_votes
from harness.voting.subset_curves import pass_at_k, vote_at_m

METRICS = ("accuracy", "correct_size", "correct_pixels", "pass_n", "vote_1", "vote_2", "unanswered")
"""Names in the order of all tables; values are in [0, 1]."""

VOTE_METRICS = ("vote_1", "vote_2")
STRICT_METRICS = ("pass_n", "vote_1", "vote_2")
"""Metrics that also have a strict value, for which every test output of the task must be right."""

ENUMERATED_METRICS = (*METRICS, "greedy", "unexplored")
"""The metrics of enumerated views (``--search dfs``), in the order of all tables."""

POOLED_METRICS = ("pass_n", "vote_1", "vote_2", "unanswered")
"""The metrics of the views of a pool (``bench pool``), in the order of all tables."""

LOWER_IS_BETTER = frozenset({"unanswered", "unexplored"})

OUTPUTS_MULTIPLE = 12
"""Least common multiple of 1–4, the numbers of test outputs that a task has."""


@dataclass(frozen=True, slots=True)
class EnumeratedRates:
    """Means over the enumerated views of one test output."""

    accuracy: float
    """Mean probability of the right grid: at most ``unexplored`` below the expected accuracy at temperature 1."""
    greedy: float
    """Share of views whose answer at temperature 0 is exact."""
    unexplored: float
    """Mean probability of all that was not enumerated."""


@dataclass(frozen=True, slots=True)
class OutputScore:
    """Scores of the predictions, or of the enumerated views, for one test output."""

    n: int
    """Number of predictions: ``exact`` + sum(``wrong``) + ``failures``. Of views, which may propose several grids."""
    exact: int
    """Predictions equal to the right grid."""
    wrong: tuple[int, ...]
    """Votes for each distinct wrong grid, descending."""
    failures: int
    """Predictions without a grid, missing ones included."""
    correct_size: float
    """Share of predictions with the right shape."""
    correct_pixels: float
    """Mean share of equal cells, 0 for predictions of another shape."""
    vote_1: float
    """1 if the right grid ranks first, else 0; a probability if ties decide."""
    vote_2: float
    """1 if the right grid ranks first or second, else 0; a probability if ties decide."""
    enumerated: EnumeratedRates | None = None
    """None for drawn predictions. Else ``exact``, ``wrong`` and ``failures`` count the views that proposed the right
    grid, each wrong one, and none; ``correct_size`` and ``correct_pixels`` weigh grids by their probability."""
    pooled: bool = False
    """Whether ``n`` counts the views of a pool, several of whose members may have answered each. Then ``exact``,
    ``wrong`` and ``failures`` count views as above, and only POOLED_METRICS are measured."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """Return the names of ``values``."""
        if self.pooled:
            return POOLED_METRICS
        return METRICS if self.enumerated is None else ENUMERATED_METRICS

    @property
    def accuracy(self) -> float:
        """Return the share of exact predictions; of enumerated views, the mean probability of the right grid."""
        return self.exact / self.n if self.enumerated is None else self.enumerated.accuracy

    @property
    def pass_n(self) -> float:
        """Return 1 if any prediction is exact, else 0."""
        return float(self.exact > 0)

    @property
    def unanswered(self) -> float:
        """Return the share of failures."""
        return self.failures / self.n

    def values(self) -> tuple[float, ...]:
        """Return all metrics in the order of ``metrics``."""
        if self.pooled:
            return self.pass_n, self.vote_1, self.vote_2, self.unanswered
        rates = (self.accuracy, self.correct_size, self.correct_pixels)
        drawn = (*rates, self.pass_n, self.vote_1, self.vote_2, self.unanswered)
        return drawn if (e := self.enumerated) is None else (*drawn, e.greedy, e.unexplored)


@dataclass(frozen=True, slots=True)
class TaskScores:
    """Metrics of a set of tasks."""

    ids: tuple[str, ...]
    """Task ids, sorted."""
    values: Floats
    """Shape (len(metrics), tasks): each task's mean over its test outputs."""
    per_output: dict[str, float]
    """By metric, the mean over all test outputs, as on Kaggle."""
    strict: dict[str, float]
    """By STRICT_METRICS, the share of tasks with every test output right."""
    denominator: int
    """Values times this are whole numbers, except where ties give fractions, and for probabilities."""
    metrics: tuple[str, ...] = METRICS
    """ENUMERATED_METRICS for enumerated views, POOLED_METRICS for the views of a pool."""

    def values_of(self, metric: str) -> Floats:
        """Return the tasks' values of one metric, shape (tasks,)."""
        values: Floats = self.values[self.metrics.index(metric)]
        return values


def score_votes(votes: Sequence[Vote], truth: Grid, n: int) -> OutputScore:
    """Return the scores of the n predictions for one test output, of which all without a vote count as failures.

    Args:
        votes: the predictions with a grid, in any order, in the original orientation and colours.
        truth: the right grid.

    Raises:
        ValueError: there are more votes than n, or n is below 1.
    """
    if n < 1 or len(votes) > n:
        raise ValueError(f"{len(votes)} predictions were given where {n} were requested")
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
    """Return the share of equal cells; 0 if the shapes differ."""
    if grid.shape != truth.shape:
        return 0.0
    equal = np.frombuffer(grid.cells, np.uint8) == np.frombuffer(truth.cells, np.uint8)
    return int(np.count_nonzero(equal)) / len(truth.cells)


def average_outputs(outputs: Mapping[str, Sequence[OutputScore]]) -> TaskScores:
    """Return the scores of tasks: each task's mean over its test outputs, and averages over them.

    Args:
        outputs: by task id, the scores of every test output of every declared task, also of those without predictions.

    Raises:
        ValueError: there is no task, a task has no test output, or outputs are of different kinds.
    """
    ids = tuple(sorted(outputs))
    if not ids or not all(outputs[task] for task in ids):
        raise ValueError("every declared task needs the score of at least one test output")
    kinds = {score.metrics for task in ids for score in outputs[task]}
    if len(kinds) > 1:
        raise ValueError("drawn predictions, enumerated views and the views of a pool have no common average")
    metrics = kinds.pop()
    rows = {task: np.array([score.values() for score in outputs[task]]) for task in ids}
    values = np.stack([rows[task].mean(axis=0) for task in ids], axis=1)
    every = np.concatenate([rows[task] for task in ids])
    # Ties of different outputs are broken independently, so that their probabilities multiply.
    strict = np.mean([rows[task].prod(axis=0) for task in ids], axis=0)
    return TaskScores(
        ids=ids,
        values=values,
        per_output=dict(zip(metrics, every.mean(axis=0).tolist(), strict=True)),
        strict={name: float(strict[metrics.index(name)]) for name in STRICT_METRICS},
        denominator=OUTPUTS_MULTIPLE * math.lcm(*{score.n for task in ids for score in outputs[task]}),
        metrics=metrics,
    )


def task_curves(outputs: Mapping[str, Sequence[OutputScore]], sizes: Sequence[int]) -> dict[str, Floats]:
    """Return the expected metrics of random subsets of the predictions: pass@k, vote_1@m and vote_2@m.

    Curves rank by count only, so that their last point may differ from the metric, which breaks ties by
    log-probabilities.

    Args:
        outputs: as for ``average_outputs``, all with the same n.
        sizes: subset sizes, each in [1, n].

    Returns:
        By the names of STRICT_METRICS, arrays of shape (len(sizes), tasks), tasks in the order of their ids. Of
        enumerated views and pools pass_n only: subsets of views in which a view votes for several grids are not
        computed.
    """
    of_views = any(score.metrics != METRICS for scores in outputs.values() for score in scores)
    names = STRICT_METRICS[:1] if of_views else STRICT_METRICS
    curves = {name: np.empty((len(sizes), len(outputs))) for name in names}
    for column, task in enumerate(sorted(outputs)):
        scores = outputs[task]
        pass_curves = [pass_at_k(s.n, [s.exact], sizes)[:, 0] for s in scores]
        curves["pass_n"][:, column] = np.mean(pass_curves, axis=0)
        if of_views:
            continue
        vote_curves = [vote_at_m(s.exact, s.wrong, s.failures, sizes) for s in scores]
        for row, name in enumerate(("vote_1", "vote_2")):
            curves[name][:, column] = np.mean([curve[row] for curve in vote_curves], axis=0)
    return curves


def selection_ratio(vote_2: float, pass_n: float) -> float | None:
    """Return vote_2 / pass_n, the share of sampled right answers that voting selects; None if pass_n is 0."""
    return vote_2 / pass_n if pass_n > 0 else None

"""Paired comparison of scores on the same tasks: interval and test of the difference, and a verdict."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from harness.stats.bootstrap import Floats, resampled_means, to_units
from harness.stats.intervals import CONFIDENCE, RESAMPLES, SMALL_SAMPLE, small_sample_level
from harness.stats.nearly_alike import FEWEST_DIFFERING, nearly_alike_bounds
from harness.stats.sign_tests import sign_tests

SIGNIFICANCE = 0.05
ALIKE = "all tasks differ alike"
"""Note of a comparison whose interval would have no width."""
FEWEST_FOR_SIGNS = 6
"""With fewer tasks no two-sided 5 % test of signs detects anything: with 5 its p-value is at least 1/16."""
_POWER_FACTOR = 1.960 + 0.842
"""Normal quantiles of a two-sided 5 % test and of 80 % power."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The paired difference of a row of values and a baseline."""

    tasks: int
    """Number of tasks."""
    won: int
    """Tasks on which the values are better."""
    lost: int
    """Tasks on which the baseline is better."""
    delta: float
    """Mean of values − baseline."""
    low: float | None
    high: float | None
    """Confidence interval of ``delta``; None without an interval, for the reason in ``note``."""
    p: float
    """Two-sided p-value of the difference."""
    p_method: str
    """``mcnemar``, ``sign-flip exact`` or ``sign-flip``."""
    p_holm: float
    """``p`` with Holm's correction for all comparisons made together."""
    sd: float
    """Standard deviation of the tasks' differences."""
    resolvable: float | None
    """Smallest difference that this many tasks resolve at 80 % power; None if ``sd`` is 0."""
    verdict: str
    """``better``, ``worse`` or ``not resolved``."""
    note: str = ""
    """Why there is no interval; else empty."""
    widest: tuple[float, float] | None = None
    """Bounds of ``delta`` where nearly all tasks differ alike (``nearly_alike_bounds``); else None."""

    @property
    def differing(self) -> int:
        """Number of tasks on which the values differ from the baseline."""
        return self.won + self.lost

    def tasks_for(self, difference: float) -> int | None:
        """Return how many tasks of this kind resolve ``difference`` at 80 % power; None if it or ``sd`` is 0."""
        return tasks_needed(self.sd, abs(difference)) if self.sd > 0 and difference else None


def compare(
    values: ArrayLike,
    baseline: ArrayLike,
    denominator: ArrayLike = 1,
    seed: int = 0,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    lower_is_better: Sequence[bool] | None = None,
) -> list[Comparison]:
    """Compare each row of task values with the same row of a baseline.

    The interval is the percentile bootstrap over tasks, with fewer than 30 tasks at the level of
    ``small_sample_level``. The test is McNemar's if all differences are −1, 0 or 1, else
    a sign-flip test: exact for up to 16 differing tasks, else with random flips. Holm's correction is over all rows.

    Args:
        values: shape (rows, tasks) or (tasks,), in [0, 1]; tasks sorted by id, as the resamples depend on the order.
        baseline: same shape and tasks.
        denominator: scale that makes the values whole numbers, for all rows or one per row; see ``to_units``.
        seed: seed of the resampling and of the sign flips.
        confidence: nominal coverage of the interval, between 0 and 1.
        resamples: number of bootstrap resamples, and of random sign flips.
        lower_is_better: for each row; None means False for all.

    Raises:
        ValueError: the shapes differ; confidence or resamples are out of range; or as ``to_units``.
    """
    ours, theirs = np.atleast_2d(np.asarray(values, np.float64)), np.atleast_2d(np.asarray(baseline, np.float64))
    if ours.shape != theirs.shape:
        raise ValueError(f"values of shape {ours.shape} cannot be paired with a baseline of shape {theirs.shape}")
    if not 0 < confidence < 1 or resamples < 1:
        raise ValueError(f"cannot use confidence {confidence} and {resamples} resamples")
    units, scale = to_units(ours - theirs, denominator)
    flipped = [False] * len(units) if lower_is_better is None else list(lower_is_better)
    tasks = units.shape[1]
    level = small_sample_level(confidence, tasks) if 1 < tasks < SMALL_SAMPLE else confidence
    ends = paired_intervals(units, seed, level, resamples) / scale[:, None]
    tests = sign_tests(units, scale, seed, resamples)
    rows = zip(units, scale, ends, tests, flipped, strict=True)
    return apply_holm([_compare_row(*row, confidence) for row in rows], flipped)


def apply_holm(comparisons: Sequence[Comparison], lower_is_better: Sequence[bool]) -> list[Comparison]:
    """Return the comparisons with Holm's correction over all of them and the verdicts that follow from it."""
    return [
        replace(c, p_holm=p, verdict=verdict_in_words(c.delta, p, lower))
        for c, p, lower in zip(comparisons, holm([c.p for c in comparisons]), lower_is_better, strict=True)
    ]


def _compare_row(
    units: Floats, scale: float, ends: Floats, test: tuple[float, str], lower: bool, confidence: float
) -> Comparison:
    """Return the comparison of one row, without verdict and Holm's correction.

    Args:
        units: the paired differences of the tasks as whole numbers; divided by ``scale`` they are shares.
        ends: the interval of the mean difference.
        test: the p-value, and the name of the test.
        lower: whether lower values are better.
        confidence: of the bounds where nearly all tasks differ alike.
    """
    tasks, above, below = len(units), int((units > 0).sum()), int((units < 0).sum())
    sd = float(units.std(ddof=1) / scale) if tasks > 1 and np.ptp(units) > 0 else 0.0
    note = ""
    if above + below < FEWEST_DIFFERING:
        note = "too few tasks differ"
    elif not ends[0] < ends[1]:
        note = ALIKE
    return Comparison(
        tasks=tasks,
        won=below if lower else above,
        lost=above if lower else below,
        delta=float(units.mean() / scale),
        low=None if note else float(ends[0]),
        high=None if note else float(ends[1]),
        p=test[0],
        p_method=test[1],
        p_holm=test[0],
        sd=sd,
        resolvable=resolvable_difference(sd, tasks),
        verdict="",
        note=note,
        widest=nearly_alike_bounds(units / scale, confidence),
    )


def paired_intervals(units: Floats, seed: int, confidence: float, resamples: int) -> Floats:
    """Return the ends of percentile bootstrap intervals of the mean difference, shape (rows, 2), in units.

    They equal those of scipy.stats.bootstrap, bit for bit.
    """
    from scipy.stats import quantile

    alpha = (1 - confidence) / 2
    ends = np.empty((len(units), 2))
    for rows, means in resampled_means(units, seed, resamples):
        ends[rows] = quantile(means, np.array([[alpha, 1 - alpha]]), axis=-1)
    return ends


def holm(ps: Sequence[float]) -> list[float]:
    """Return the p-values with Holm's step-down correction (1979), in the same order."""
    order = sorted(range(len(ps)), key=lambda i: ps[i])
    corrected = [0.0] * len(ps)
    highest = 0.0
    for position, i in enumerate(order):
        highest = max(highest, min(1.0, (len(ps) - position) * ps[i]))
        corrected[i] = highest
    return corrected


def resolvable_difference(sd: float, tasks: int) -> float | None:
    """Return the smallest difference that a 5 % test of paired tasks detects with 80 % power; None if sd is 0."""
    return _POWER_FACTOR * sd / math.sqrt(tasks) if sd > 0 else None


def tasks_needed(sd: float, difference: float) -> int:
    """Return how many paired tasks a 5 % test needs to detect ``difference`` with 80 % power.

    They are at least FEWEST_FOR_SIGNS.

    Args:
        sd: standard deviation of the tasks' differences.

    Raises:
        ValueError: sd or difference is not above 0.
    """
    if not (sd > 0 and difference > 0):
        raise ValueError(f"cannot plan for sd {sd} and difference {difference}: both must be above 0")
    return max(FEWEST_FOR_SIGNS, math.ceil((_POWER_FACTOR * sd / difference) ** 2))


def verdict_in_words(delta: float, p: float, lower_is_better: bool) -> str:
    """Return ``better``, ``worse`` or ``not resolved`` for a difference with this corrected p-value."""
    if p >= SIGNIFICANCE or delta == 0:
        return "not resolved"
    return "better" if (delta > 0) != lower_is_better else "worse"

"""Comparison of two recipes by the scores of several training runs of each on the same tasks.

The interval and the test are over tasks and training runs: they answer what the difference would be with other tasks
of this kind and with other training runs of the two recipes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from harness.stats.bootstrap import Floats, to_units
from harness.stats.crossed_variance import DifferenceVariance, difference_variance
from harness.stats.intervals import CONFIDENCE, RESAMPLES
from harness.stats.nearly_alike import FEWEST_DIFFERING, nearly_alike_bounds
from harness.stats.paired_test import ALIKE, holm, verdict_in_words
from harness.stats.sign_tests import sign_tests

_ROUNDING = 1e-24
"""A variance below this is that of rounding errors."""


@dataclass(frozen=True, slots=True)
class VarianceShares:
    """Shares of the variance of the difference; those that are known add up to 1."""

    tasks: float
    """Recipe × task: how differently the tasks respond to the two recipes."""
    training: float
    """Differences between training runs of one recipe that are the same on all tasks."""
    training_tasks: float
    """Training run × task; also sampling where ``sampling`` is None."""
    sampling: float | None
    """Sampling of predictions; None if it was not measured."""


@dataclass(frozen=True, slots=True)
class RecipeComparison:
    """The difference of two recipes in one metric."""

    runs: tuple[int, int]
    """Number of training runs of the recipe and of its baseline."""
    paired: bool
    """Whether the training runs were compared in pairs."""
    tasks: int
    won: int
    """Tasks on which the recipe's mean over its runs is better."""
    lost: int
    """Tasks on which the baseline's mean over its runs is better."""
    delta: float
    """Mean of the recipe − mean of the baseline."""
    low: float | None
    high: float | None
    """Confidence interval of ``delta``; None without an interval, for the reason in ``note``."""
    p: float
    """Two-sided p-value of the difference."""
    p_method: str
    """``t``; or, without an interval, the test over tasks whose p-value is larger or the only one."""
    p_holm: float
    """``p`` with Holm's correction for all comparisons made together."""
    standard_error: float
    degrees_of_freedom: float | None
    """Of the t distribution; None if the standard error is 0."""
    shares: VarianceShares | None
    """What the variance consists of; None if it is 0."""
    verdict: str
    """``better``, ``worse`` or ``not resolved``."""
    note: str = ""
    """Why there is no interval; else empty."""
    widest: tuple[float, float] | None = None
    """Bounds of ``delta`` where nearly all tasks differ alike (``nearly_alike_bounds``); else None."""

    @property
    def differing(self) -> int:
        """Number of tasks on which the means of the two recipes differ."""
        return self.won + self.lost

    def half_width(self, confidence: float) -> float:
        """Return half the width of Student's t interval over tasks and training runs, also where none is shown."""
        if self.degrees_of_freedom is None:
            return 0.0
        from scipy.special import stdtrit

        return float(stdtrit(self.degrees_of_freedom, (1 + confidence) / 2)) * self.standard_error


def compare_recipes(
    values: ArrayLike,
    baseline: ArrayLike,
    *,
    paired: bool = False,
    lower_is_better: bool = False,
    sampling: float | None = None,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> RecipeComparison:
    """Compare the scores of a recipe's training runs with those of a baseline.

    The standard error is the root of the variance over tasks plus the variance over training runs, from which the part
    that training run × task explains is subtracted, as it is in the variance over tasks already. Interval and p-value
    are Student's t with Satterthwaite's degrees of freedom (a lower bound of them for pairs of runs). With two training
    runs of a recipe they are conservative. If fewer than 10 tasks differ there is no interval, and the p-value is the
    larger of that of t and of the sign-flip test over tasks, which is exact there.

    Args:
        values: scores in [0, 1], shape (runs, tasks).
        baseline: scores of the other recipe, shape (runs, tasks) with the same tasks.
        paired: whether run s of ``values`` was trained to be compared with run s of ``baseline`` (equal seeds alone
            do not pair two runs).
        sampling: variance of a score of one run on one task that sampling explains (see ``sampling_variance``).
        confidence: nominal coverage of the interval, between 0 and 1.
        seed: of the sign flips.

    Raises:
        ValueError: a score is not in [0, 1]; confidence is out of range; or as ``difference_variance``, in
            particular for a recipe with one training run.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"cannot use confidence {confidence}")
    ours, theirs = np.asarray(values, np.float64), np.asarray(baseline, np.float64)
    variance = difference_variance(ours, theirs, paired)
    if min(ours.min(), theirs.min()) < 0 or max(ours.max(), theirs.max()) > 1:
        raise ValueError("scores must be within [0, 1]")
    # Rounded, because sums in another order differ in the last bits, which is no difference.
    differences = np.round(ours.mean(axis=0) - theirs.mean(axis=0), 12)
    test = _test(variance, differences, confidence, seed)
    above, below = int((differences > 0).sum()), int((differences < 0).sum())
    delta = float(variance.delta)
    return RecipeComparison(
        runs=variance.runs,
        paired=paired,
        tasks=variance.tasks,
        won=below if lower_is_better else above,
        lost=above if lower_is_better else below,
        delta=delta,
        low=None if test.note else max(delta - test.half_width, -1.0),
        high=None if test.note else min(delta + test.half_width, 1.0),
        p=test.p,
        p_method=test.method,
        p_holm=test.p,
        standard_error=test.error,
        degrees_of_freedom=test.freedom,
        shares=variance_shares(variance, sampling) if test.error else None,
        verdict=verdict_in_words(delta, test.p, lower_is_better),
        note=test.note,
        widest=nearly_alike_bounds(differences, confidence),
    )


def correct_recipes(comparisons: Sequence[RecipeComparison], lower_is_better: Sequence[bool]) -> list[RecipeComparison]:
    """Return the comparisons with Holm's correction over all of them and the verdicts that follow from it."""
    return [
        replace(c, p_holm=p, verdict=verdict_in_words(c.delta, p, lower))
        for c, p, lower in zip(comparisons, holm([c.p for c in comparisons]), lower_is_better, strict=True)
    ]


def sampling_variance(first_half: ArrayLike, second_half: ArrayLike) -> float:
    """Return the variance of a run's score on a task that sampling N predictions explains, from half-splits of N.

    A score that is a mean over predictions (accuracy, but not vote_k or pass_n) is the mean of the scores of the two
    halves, and its sampling variance is a quarter of the variance of their difference. What the halves of all runs
    have in common on a task is left out: runs that use the same views share it, and it cancels between recipes.

    Args:
        first_half: scores from N/2 of the predictions, shape (runs, tasks), with the runs of both recipes.
        second_half: scores from the other N/2.

    Raises:
        ValueError: the shapes differ, there are fewer than two runs, or a score is not finite.
    """
    first, second = np.asarray(first_half, np.float64), np.asarray(second_half, np.float64)
    if first.shape != second.shape or first.ndim != 2 or len(first) < 2:
        raise ValueError(f"halves must both have the shape (runs, tasks), not {first.shape} and {second.shape}")
    differences = first - second
    if not np.isfinite(differences).all():
        raise ValueError("a score is not finite")
    return float(differences.var(axis=0, ddof=1).mean() / 4)


def variance_shares(variance: DifferenceVariance, sampling: float | None = None) -> VarianceShares:
    """Return the shares of the variance of one difference.

    Args:
        variance: of one difference (arrays of shape ()), not 0.
        sampling: as ``sampling_variance`` returns it; at most what training run × task and sampling explain together.
    """
    total = float(variance.total)
    mixed = min(float(variance.interaction), float(variance.over_tasks))
    sampled = None
    if sampling is not None:
        sampled = min(sampling * sum(1 / runs for runs in variance.runs) / variance.tasks, mixed)
    return VarianceShares(
        tasks=(float(variance.over_tasks) - mixed) / total,
        training=float(variance.training) / total,
        training_tasks=(mixed - (sampled or 0.0)) / total,
        sampling=None if sampled is None else sampled / total,
    )


@dataclass(frozen=True, slots=True)
class _Test:
    """Test of one difference."""

    error: float
    freedom: float | None
    half_width: float
    """Of the interval; 0 if ``note`` says why there is none."""
    p: float
    method: str
    note: str


def _test(variance: DifferenceVariance, differences: Floats, confidence: float, seed: int) -> _Test:
    """Return the test of one difference with the tasks' differences."""
    from scipy.special import stdtr, stdtrit

    error = math.sqrt(float(variance.total)) if variance.total > _ROUNDING else 0.0
    freedom = float(variance.degrees_of_freedom) if error else None
    p, half = 0.0, 0.0
    if freedom is not None:
        p = min(1.0, 2 * float(stdtr(freedom, -abs(float(variance.delta)) / error)))
        half = float(stdtrit(freedom, (1 + confidence) / 2)) * error
    if error and np.count_nonzero(differences) >= FEWEST_DIFFERING:
        return _Test(error, freedom, half, p, "t", "")
    note = "too few tasks differ" if np.count_nonzero(differences) < FEWEST_DIFFERING else ALIKE
    p_tasks, method = sign_tests(*to_units(differences), seed, RESAMPLES)[0]
    p, method = (p, "t") if p > p_tasks else (p_tasks, method)
    return _Test(error, freedom, 0.0, p, method, note)

"""Differences between two rows of scores on the same tasks: interval, test, and a verdict in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from harness.stats.bootstrap import ROUNDED, Floats, resampled_means, to_units, unsigned_seed
from harness.stats.intervals import CONFIDENCE, RESAMPLES

SIGNIFICANCE = 0.05
FEWEST_DIFFERING = 10
"""With fewer tasks that differ no interval is printed."""
EXACT_FLIPS = 16
"""Up to this many differing tasks all sign flips are enumerated."""

_POWER_FACTOR = 1.960 + 0.842
"""Normal quantiles of a two-sided 5 % test and of 80 % power."""
_BLOCK = 1 << 21


@dataclass(frozen=True, slots=True)
class Comparison:
    """A paired difference, values − baseline.

    ``low`` and ``high`` are None, and ``note`` says why, where no interval can be given. ``won`` and
    ``lost`` are the numbers of tasks with a difference above and below 0 (the reverse where lower is
    better). ``p_method`` is ``mcnemar``, ``sign-flip exact`` or ``sign-flip``; ``p_holm`` is corrected for
    all the comparisons made together. ``resolvable`` is the smallest difference that this many tasks
    resolve at 80 % power, None where the differences do not vary. ``verdict`` is ``better``, ``worse`` or
    ``not resolved``.
    """

    tasks: int
    won: int
    lost: int
    delta: float
    low: float | None
    high: float | None
    p: float
    p_method: str
    p_holm: float
    sd: float
    resolvable: float | None
    verdict: str
    note: str = ""

    @property
    def differing(self) -> int:
        """Tasks on which the two differ."""
        return self.won + self.lost

    def tasks_for(self, difference: float) -> int | None:
        """Tasks of this kind that resolve ``difference`` at 80 % power; None where it is 0 or nothing varies."""
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
    """Compare rows of task values pairwise with rows of a baseline; Holm's correction is over all rows.

    Args:
        values: shape (rows, tasks) or (tasks,), values in [0, 1], tasks in the order of their ids.
        baseline: the same tasks, the same shape.
        denominator: what makes whole numbers of the values, one for all rows or one a row.
        seed: of the resampling and of the sign flips.
        confidence: of the percentile bootstrap interval.
        resamples: of the bootstrap, and the number of random sign flips.
        lower_is_better: by row; False for all where not given.

    Raises:
        ValueError: the shapes differ, or see ``to_units``.
    """
    ours, theirs = np.atleast_2d(np.asarray(values, np.float64)), np.atleast_2d(np.asarray(baseline, np.float64))
    if ours.shape != theirs.shape:
        raise ValueError(f"values of shape {ours.shape} cannot be paired with a baseline of shape {theirs.shape}")
    if not 0 < confidence < 1 or resamples < 1:
        raise ValueError(f"cannot use confidence {confidence} and {resamples} resamples")
    units, scale = to_units(ours - theirs, denominator)
    flipped = [False] * len(units) if lower_is_better is None else list(lower_is_better)
    ends = paired_intervals(units, seed, confidence, resamples) / scale[:, None]
    tests = sign_tests(units, scale, seed, resamples)
    rows = zip(units, scale, ends, tests, flipped, strict=True)
    found = [_comparison(*row) for row in rows]
    return apply_holm(found, flipped)


def apply_holm(found: Sequence[Comparison], lower_is_better: Sequence[bool]) -> list[Comparison]:
    """Return the same comparisons with Holm's correction over all of them, and the verdicts that follow from it."""
    return [
        replace(c, p_holm=p, verdict=_verdict(c.delta, p, lower))
        for c, p, lower in zip(found, holm([c.p for c in found]), lower_is_better, strict=True)
    ]


def _comparison(units: Floats, scale: float, ends: Floats, test: tuple[float, str], lower: bool) -> Comparison:
    tasks, above, below = len(units), int((units > 0).sum()), int((units < 0).sum())
    sd = float(units.std(ddof=1) / scale) if tasks > 1 and np.ptp(units) > 0 else 0.0
    note = ""
    if above + below < FEWEST_DIFFERING:
        note = "too few tasks differ"
    elif not ends[0] < ends[1]:
        note = "all tasks differ alike"
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
    )


def paired_intervals(units: Floats, seed: int, confidence: float, resamples: int) -> Floats:
    """Percentile bootstrap ends (rows, 2) of the mean difference, in units; equal to scipy's, bit for bit."""
    from scipy.stats import quantile

    alpha = (1 - confidence) / 2
    ends = np.empty((len(units), 2))
    for rows, means in resampled_means(units, seed, resamples):
        ends[rows] = quantile(means, np.array([[alpha, 1 - alpha]]), axis=-1)
    return ends


def sign_tests(units: Floats, scale: Floats, seed: int, flips: int) -> list[tuple[float, str]]:
    """Two-sided p and its method for each row of paired differences (whole numbers, so that ties are exact)."""
    results: dict[int, tuple[float, str]] = {}
    # Rounding to 12 decimals puts equal sums apart by up to a unit a task; they count as reached all the same.
    slack = np.where(scale == ROUNDED, units.shape[1], 0.0)
    for i, row in enumerate(units):
        differing = row[row != 0]
        if np.all(np.abs(differing) == scale[i]):
            results[i] = mcnemar(int((differing > 0).sum()), int((differing < 0).sum())), "mcnemar"
        elif len(differing) <= EXACT_FLIPS:
            results[i] = _exact_flips(differing, slack[i]), "sign-flip exact"
    rest = [i for i in range(len(units)) if i not in results]
    if rest:
        reached = _random_flips(units[rest], slack[rest], seed, flips)
        results.update((i, ((1 + int(b)) / (1 + flips), "sign-flip")) for i, b in zip(rest, reached, strict=True))
    return [results[i] for i in range(len(units))]


def mcnemar(won: int, lost: int) -> float:
    """McNemar's exact two-sided p: a fair coin over the tasks that differ (1 where none does)."""
    n, fewer = int(won) + int(lost), min(int(won), int(lost))
    tail = ways = 1  # of choosing i of n; whole numbers, so that the result is exact to the last bit
    for i in range(fewer):
        ways = ways * (n - i) // (i + 1)
        tail += ways
    return min(1.0, 2 * tail / (1 << n))


def _exact_flips(differences: Floats, slack: float) -> float:
    sums = np.zeros(1)
    for difference in differences:
        sums = np.concatenate((sums + difference, sums - difference))
    return float((np.abs(sums) >= abs(differences.sum()) - slack).mean())


def _random_flips(units: Floats, slack: Floats, seed: int, flips: int) -> Floats:
    """How many of the random flips reach the observed |sum|; the same flips for every row."""
    observed = np.abs(units.sum(axis=1)) - slack
    # A stream of its own, so that the test does not lean on the interval's draws.
    rng = np.random.default_rng([unsigned_seed(seed), 1])
    reached: Floats = np.zeros(len(units))
    block = max(1, _BLOCK // max(units.shape))
    for start in range(0, flips, block):
        height = min(block, flips - start)
        signs = rng.integers(0, 2, (height, units.shape[1])).astype(np.float64) * 2 - 1
        reached += (np.abs(signs @ units.T) >= observed).sum(axis=0)
    return reached


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979), in the order given."""
    order = sorted(range(len(ps)), key=lambda i: ps[i])
    corrected = [0.0] * len(ps)
    highest = 0.0
    for place, i in enumerate(order):
        highest = max(highest, min(1.0, (len(ps) - place) * ps[i]))
        corrected[i] = highest
    return corrected


def resolvable_difference(sd: float, tasks: int) -> float | None:
    """The smallest difference that ``tasks`` paired tasks resolve at 80 % power, None where sd is 0."""
    return _POWER_FACTOR * sd / math.sqrt(tasks) if sd > 0 else None


def tasks_needed(sd: float, difference: float) -> int:
    """Paired tasks that resolve ``difference`` at 80 % power where the paired differences have this sd.

    Raises:
        ValueError: sd or difference is not above 0.
    """
    if not (sd > 0 and difference > 0):
        raise ValueError(f"cannot plan for sd {sd} and difference {difference}: both must be above 0")
    return math.ceil((_POWER_FACTOR * sd / difference) ** 2)


def _verdict(delta: float, p: float, lower_is_better: bool) -> str:
    if p >= SIGNIFICANCE or delta == 0:
        return "not resolved"
    return "better" if (delta > 0) != lower_is_better else "worse"

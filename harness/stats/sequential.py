"""Verdict on two adapters with as few tasks as it needs: repeated looks at a growing sample of tasks.

Tasks come in a random order that is fixed before sampling, and a task counts when all its predictions of both adapters
are there. After agreed numbers of tasks the paired differences are tested. The 5 % of false alarms are spread over the
looks (alpha spending, Lan and DeMets 1983, Biometrika 70:659), so that the verdict is valid at the looks of the
schedule, and only there. It is about two adapters, not about their recipes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from harness.stats.bootstrap import Floats, to_units, unsigned_seed
from harness.stats.intervals import RESAMPLES
from harness.stats.nearly_alike import unseen_extremes
from harness.stats.paired_test import SIGNIFICANCE

LOOKS = 20
"""Number of looks of a schedule, at equal distances."""
EXPONENT = 2.0
"""After a share x of the tasks α·x² is spent (Kim and DeMets 1987, Biometrika 74:149)."""
UNDECIDED = "undecided"
_SMALLER = "smaller than "
_DECIMALS = 9


@dataclass(frozen=True, slots=True)
class Schedule:
    """When to look, and how much of the probability of a false alarm may be spent by then."""

    looks: tuple[int, ...]
    """Numbers of tasks, ascending; the last is the largest number of tasks."""
    alpha: float = SIGNIFICANCE
    """Probability of a false alarm over all looks."""

    def __post_init__(self) -> None:
        if not self.looks or self.looks[0] < 1 or any(a >= b for a, b in zip(self.looks, self.looks[1:], strict=False)):
            raise ValueError(f"looks must be ascending numbers of tasks, not {self.looks}")
        if not 0 < self.alpha < 1:
            raise ValueError(f"cannot use alpha {self.alpha}")

    def spent(self, look: int) -> float:
        """Return what may be spent up to the look with this index."""
        return float(self.alpha * (self.looks[look] / self.looks[-1]) ** EXPONENT)


@dataclass(frozen=True, slots=True)
class Look:
    """The comparison after a number of tasks."""

    tasks: int
    delta: float
    """Mean difference of these tasks."""
    low: float | None
    high: float | None
    """Repeated confidence interval: all those of a schedule together contain the difference with 1 − alpha. None where
    so little is spent yet that no difference would be resolved."""
    resolved: bool
    """Whether the difference is not 0."""


@dataclass(frozen=True, slots=True)
class SequentialVerdict:
    """The looks up to the first that decides."""

    looks: tuple[Look, ...]
    verdict: str
    """``better``, ``worse``, ``smaller than d`` (either sign), ``not resolved`` after all tasks, or UNDECIDED."""

    @property
    def decided(self) -> bool:
        """Whether no more tasks are wanted."""
        return self.verdict != UNDECIDED


def even_schedule(tasks: int, pairs: int = 1, looks: int = LOOKS) -> Schedule:
    """Return a schedule of looks at equal distances.

    Args:
        tasks: largest number of tasks.
        pairs: number of pairs of adapters that are compared; the probability of a false alarm is divided among them.
        looks: number of looks; one after every task if there are fewer tasks.

    Raises:
        ValueError: an argument is below 1.
    """
    if min(tasks, pairs, looks) < 1:
        raise ValueError(f"cannot schedule {looks} looks at {tasks} tasks for {pairs} pairs")
    numbers = sorted({math.ceil(tasks * (i + 1) / looks) for i in range(looks)})
    return Schedule(tuple(numbers), SIGNIFICANCE / pairs)


def task_order(tasks: Sequence[str], seed: int) -> list[str]:
    """Return the tasks in the random order in which they are sampled; it depends on their ids and the seed only."""
    ordered = sorted(tasks)
    rng = np.random.default_rng([unsigned_seed(seed), 3])
    return [ordered[i] for i in rng.permutation(len(ordered))]


def sequential_verdict(
    differences: ArrayLike,
    schedule: Schedule,
    denominator: int = 1,
    smaller_than: float | None = None,
    lower_is_better: bool = False,
    seed: int = 0,
    flips: int = RESAMPLES,
) -> SequentialVerdict:
    """Return the verdict after the tasks that were sampled so far.

    If the adapters are equal, every pattern of signs of the differences is equally likely. A random set of patterns is
    drawn; the boundary of a look is the |sum| that, among the patterns which crossed no earlier boundary, is exceeded
    by as many as may be spent. The observed pattern is one of them, so that the probability of a false alarm is at most
    alpha for any distribution of the differences, as in ``paired_test``. The interval of a look is its mean ± its
    boundary (repeated confidence intervals, Jennison and Turnbull 1989, JRSS B 51:305).

    The delta of a look that decides is too large on average, because a chance deviation made it decide.

    Args:
        differences: model − baseline in [−1, 1], of the tasks in the order in which they were sampled; as many as one
            of the looks. Longer ones give the same verdict once it is decided.
        denominator: scale that makes the differences whole numbers; see ``bootstrap.to_units``.
        smaller_than: the verdict is also decided once the interval, widened by what unseen tasks may hide
            (``unseen_extremes``), lies within ± this (futility bound). It holds with 1 − alpha if the differences are
            about symmetric around their mean.
        lower_is_better: turns better and worse.
        seed: of the patterns.
        flips: number of random patterns.

    Raises:
        ValueError: the number of differences is not that of a look; ``smaller_than`` is 0 or less; a difference is not
            in [−1, 1].
    """
    values = np.asarray(differences, np.float64)
    if values.ndim != 1 or len(values) not in schedule.looks:
        raise ValueError(f"{values.size} tasks are not one of the looks {schedule.looks}")
    if smaller_than is not None and not smaller_than > 0:
        raise ValueError(f"a futility bound must be above 0, not {smaller_than}")
    looks = []
    for look in _looks(values, schedule, denominator, seed, flips):
        looks.append(look)
        if look.resolved:
            return SequentialVerdict(tuple(looks), "better" if (look.delta > 0) != lower_is_better else "worse")
        if smaller_than is not None and _within(look, values, smaller_than, 1 - schedule.alpha):
            return SequentialVerdict(tuple(looks), f"{_SMALLER}{smaller_than:g}")
    finished = len(values) == schedule.looks[-1]
    return SequentialVerdict(tuple(looks), "not resolved" if finished else UNDECIDED)


def tasks_for_smaller(bound: float, alpha: float) -> int:
    """Return how many tasks ``smaller_than`` takes at least, if none of them is won or lost entirely.

    That many must be seen until a share of ``bound`` that differs by 1 is unlikely to have been missed: more than
    z²(1 − bound)/bound, where Wilson's upper end for none of them is ``bound``.
    """
    squared = NormalDist().inv_cdf(1 - alpha / 2) ** 2
    return math.floor(squared * (1 - bound) / bound) + 1


def verdict_in_points(verdict: str) -> str:
    """Return a verdict as people read it: ``smaller than 0.03`` as ``smaller than 3 points``, others as they are."""
    if not verdict.startswith(_SMALLER):
        return verdict
    bound = f"{100 * float(verdict.removeprefix(_SMALLER)):g}"
    return f"{_SMALLER}{bound} {'point' if bound == '1' else 'points'}"


def _within(look: Look, values: Floats, bound: float, confidence: float) -> bool:
    """Return whether the interval of a look lies within ± a bound, widened by what tasks that it did not see may hide.

    The sign patterns know only differences that were seen. A few per cent of tasks that lose everything may be missing
    among them, and their mean is not that of all tasks.
    """
    if look.low is None or look.high is None:
        return False
    seen = values[: look.tasks]
    extremes = min(float(seen.min()), 0.0), max(float(seen.max()), 0.0)
    lowered, raised = unseen_extremes(*extremes, look.tasks, confidence)
    return -bound < look.low - lowered and look.high + raised < bound


def _looks(values: Floats, schedule: Schedule, denominator: int, seed: int, flips: int) -> Iterator[Look]:
    """Yield the looks at the differences."""
    units, scale = to_units(values, denominator)
    sums = np.zeros(flips + 1)
    crossed = np.zeros(flips + 1, dtype=bool)
    start = 0
    for index, tasks in enumerate(schedule.looks):
        if tasks > len(values):
            return
        block = units[0, start:tasks]
        # Each look has a stream of its own, so that a pattern does not depend on how many tasks there are so far.
        rng = np.random.default_rng([unsigned_seed(seed), 2, index])
        signs = rng.integers(0, 2, (flips, len(block)), dtype=np.int8)
        sums += np.concatenate(([block.sum()], (2.0 * signs - 1) @ np.abs(block)))
        # Rounded, as sums of rounded differences differ in the last digits.
        reached = np.round(np.abs(sums) / scale[0], _DECIMALS)
        boundary = _boundary(reached[~crossed], math.floor(schedule.spent(index) * (flips + 1) + 1e-9) - crossed.sum())
        crossed |= reached > boundary
        delta = float(units[0, :tasks].sum() / scale[0] / tasks)
        half = boundary / tasks if math.isfinite(boundary) else None
        yield Look(
            tasks,
            delta,
            None if half is None else max(delta - half, -1.0),
            None if half is None else min(delta + half, 1.0),
            bool(crossed[0]),
        )
        start = tasks


def _boundary(reached: NDArray[np.float64], allowed: int) -> float:
    """Return a bound that at most ``allowed`` of the values exceed, as low as possible; infinity if none may.

    It lies between two of the values, so that none equals it.
    """
    descending = np.sort(reached)[::-1]
    lower = descending[allowed] if allowed < len(descending) else 0.0
    larger = descending[descending > lower]
    return float(larger[-1] + lower) / 2 if allowed > 0 and len(larger) else math.inf

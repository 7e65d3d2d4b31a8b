"""Bounds of a paired difference that is nearly the same on all tasks, where the bootstrap is too narrow."""

from __future__ import annotations

import numpy as np

from harness.stats.bootstrap import Floats
from harness.stats.intervals import wilson

FEWEST_DIFFERING = 10
"""Number of differing tasks from which on a difference gets an interval."""


def nearly_alike_bounds(differences: Floats, confidence: float) -> tuple[float, float] | None:
    """Return bounds of the mean difference where fewer than ``FEWEST_DIFFERING`` tasks differ unlike all others.

    There the bootstrap is too narrow: it knows no other tasks than those few. Most tasks differ by d. The share of the
    k tasks that do not is at most q(k), the upper end of Wilson's interval, and they differ by no less than the least
    of them; tasks that lose everything may have been missed besides, at a share of at most q(0). The lower bound is
    d − q(k)(d − least) − q(0)(least + 1), and the upper bound likewise.

    Returns:
        None if more tasks are unlike, or if most tasks do not differ.
    """
    values, counts = np.unique(differences, return_counts=True)
    most = int(counts.argmax())
    common, tasks = float(values[most]), len(differences)
    unlike = tasks - int(counts[most])
    if unlike >= FEWEST_DIFFERING or unlike >= tasks / 2 or common == 0:
        return None
    least, largest = min(common, float(values[0])), max(common, float(values[-1]))
    seen = wilson(unlike / tasks, tasks, confidence)[1]
    lowered, raised = unseen_extremes(least, largest, tasks, confidence)
    return common - seen * (common - least) - lowered, common + seen * (largest - common) + raised


def unseen_extremes(least: float, largest: float, tasks: int, confidence: float) -> tuple[float, float]:
    """Return by how much tasks of a kind that was not seen may lower and may raise a mean difference.

    Tasks that lose everything, and tasks that win everything, are each a share of at most q(0) of all tasks, the upper
    end of Wilson's interval for none of those seen. They differ by −1 and 1 instead of the extremes that were seen.

    Args:
        least: the smallest difference that was seen, of ``tasks`` tasks.
        largest: the largest.
    """
    missed = wilson(0.0, tasks, confidence)[1]
    return missed * (least + 1), missed * (1 - largest)

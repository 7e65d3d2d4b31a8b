"""Intervals of the means of recipes over tasks and training runs."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from harness.stats.crossed_variance import difference_variance
from harness.stats.intervals import CONFIDENCE, RESAMPLES, Interval, intervals


def recipe_intervals(
    values: ArrayLike, confidence: float = CONFIDENCE, seed: int = 0, resamples: int = RESAMPLES
) -> list[Interval]:
    """Return the mean of each recipe with an interval for other tasks of this kind and other training runs.

    The interval is Student's t with the variance and degrees of freedom of ``difference_variance``, where the other
    recipe scores 0 on every task and so contributes nothing. It is extended where the interval over tasks of the mean
    over the runs (``intervals``) reaches further, as it does for few tasks with skewed scores; the method then names
    both (``t and bca``, ``t and wilson``).

    Args:
        values: scores in [0, 1], shape (recipes, runs, tasks).
        confidence: nominal coverage, between 0 and 1.
        seed: of the bootstrap over tasks.
        resamples: number of its resamples.

    Raises:
        ValueError: a score is not in [0, 1]; confidence is out of range; or as ``difference_variance``, in particular
            for one training run.
    """
    from scipy.special import stdtrit

    if not 0 < confidence < 1:
        raise ValueError(f"cannot use confidence {confidence}")
    scores = np.asarray(values, np.float64)
    variance = difference_variance(scores, np.zeros_like(scores))
    if scores.min() < 0 or scores.max() > 1:
        raise ValueError("scores must be within [0, 1]")
    quantiles = stdtrit(variance.degrees_of_freedom, (1 + confidence) / 2)
    halves = np.where(variance.total > 0, quantiles * np.sqrt(variance.total), 0.0)
    lows, highs = np.maximum(variance.delta - halves, 0.0), np.minimum(variance.delta + halves, 1.0)
    over_tasks = intervals(scores.mean(axis=1), 1, seed, confidence, resamples)
    ends = zip(variance.delta.tolist(), lows.tolist(), highs.tolist(), over_tasks, strict=True)
    return [
        Interval(
            mean,
            min(low, tasks.low),
            max(high, tasks.high),
            "t" if low <= tasks.low and tasks.high <= high else f"t and {tasks.method}",
            variance.tasks,
        )
        for mean, low, high, tasks in ends
    ]


def recipe_interval(
    values: ArrayLike, confidence: float = CONFIDENCE, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """Return the mean of one recipe with its interval; see ``recipe_intervals``.

    Args:
        values: scores in [0, 1], shape (runs, tasks).
    """
    return recipe_intervals(np.asarray(values, np.float64)[None], confidence, seed, resamples)[0]

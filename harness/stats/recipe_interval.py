"""Interval of the mean of one recipe over tasks and training runs."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from harness.stats.crossed_variance import difference_variance
from harness.stats.intervals import CONFIDENCE, RESAMPLES, Interval, intervals


def recipe_interval(
    values: ArrayLike, confidence: float = CONFIDENCE, seed: int = 0, resamples: int = RESAMPLES
) -> Interval:
    """Return the mean of a recipe with an interval for other tasks of this kind and other training runs.

    The interval is Student's t with the variance and degrees of freedom of ``difference_variance``, where the other
    recipe scores 0 on every task and so contributes nothing. It is extended where the interval over tasks of the mean
    over the runs (``intervals``) reaches further, as it does for few tasks with skewed scores; the method then names
    both (``t and bca``, ``t and wilson``).

    Args:
        values: scores in [0, 1], shape (runs, tasks).
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
    mean, tasks, half = float(variance.delta), variance.tasks, 0.0
    if variance.total > 0:
        half = float(stdtrit(variance.degrees_of_freedom, (1 + confidence) / 2)) * math.sqrt(float(variance.total))
    low, high = max(mean - half, 0.0), min(mean + half, 1.0)
    over_tasks = intervals(scores.mean(axis=0), 1, seed, confidence, resamples)[0]
    method = "t" if low <= over_tasks.low and over_tasks.high <= high else f"t and {over_tasks.method}"
    return Interval(mean, min(low, over_tasks.low), max(high, over_tasks.high), method, tasks)

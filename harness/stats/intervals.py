"""Confidence intervals of means over tasks: BCa by resampling tasks, Wilson's where BCa does not hold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from harness.stats.bootstrap import Floats, resampled_means, to_units

CONFIDENCE = 0.95
RESAMPLES = 9_999
FEWEST_FOR_BCA = 5
"""Tasks above 0 and below 1 that BCa needs; with fewer its coverage falls far below the nominal one."""
FEW_TASKS = 50
"""Below this many tasks the note under a table says so."""
SMALL_SAMPLE = 30
"""Below this many tasks a bootstrap at the nominal level covers too seldom, and a higher one is used."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over ``tasks`` tasks with its confidence interval; ``method`` is ``bca``, ``bca-small`` or ``wilson``."""

    value: float
    low: float
    high: float
    method: str
    tasks: int


def intervals(
    values: ArrayLike,
    denominator: ArrayLike = 1,
    seed: int = 0,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
) -> list[Interval]:
    """One interval a row, over tasks: what the mean would be on other tasks of the same kind.

    BCa equals ``scipy.stats.bootstrap(…, method="BCa", rng=numpy.random.default_rng(seed))`` on the
    row's whole numbers, bit for bit; with fewer than 30 tasks at the level of ``small_sample_level``
    (``bca-small``). Wilson's interval with n = tasks stands in where fewer than five tasks lie above 0 or
    below 1, or where all tasks have the same value.

    Args:
        values: shape (rows, tasks) or (tasks,), each a task's value in [0, 1], tasks in the order of their ids.
        denominator: what makes whole numbers of the values, one for all rows or one a row.
        seed: of the resampling.
        confidence: nominal coverage, between 0 and 1.
        resamples: draws of a set of tasks.

    Raises:
        ValueError: see ``to_units``; a value below 0; a confidence not between 0 and 1; no resamples.
    """
    if not 0 < confidence < 1 or resamples < 1:
        raise ValueError(f"cannot use confidence {confidence} and {resamples} resamples")
    units, scale = to_units(values, denominator)
    if units.min() < 0 or np.any(units > scale[:, None]):
        raise ValueError("values must be within [0, 1]")
    tasks = units.shape[1]
    centres = units.mean(axis=1) / scale
    ends = np.array([wilson(float(value), tasks, confidence) for value in centres])
    above, below = (units > 0).sum(axis=1), (units < scale[:, None]).sum(axis=1)
    rows = np.flatnonzero((np.minimum(above, below) >= FEWEST_FOR_BCA) & (np.ptp(units, axis=1) > 0))
    small = tasks < SMALL_SAMPLE
    level = small_sample_level(confidence, tasks) if small and len(rows) else confidence
    found = bca(units[rows], seed, level, resamples) / scale[rows, None]
    # Too few resamples can leave an end undefined or a width of zero; Wilson's stays there.
    sound = np.isfinite(found).all(axis=1) & (found[:, 0] < found[:, 1])
    ends[rows[sound]] = found[sound]
    methods = np.full(len(units), "wilson", dtype=object)
    methods[rows[sound]] = "bca-small" if small else "bca"
    return [
        Interval(float(value), float(low), float(high), str(method), tasks)
        for value, (low, high), method in zip(centres, ends, methods, strict=True)
    ]


def small_sample_level(confidence: float, tasks: int) -> float:
    """The level at which a bootstrap of few values covers as asked (Hesterberg 2015, arXiv 1411.5279).

    Resampled means of n values spread too little by √((n − 1)/n), and the normal quantile should be Student's
    t with n − 1 degrees of freedom. Both are mended by taking the bootstrap's ends further out, as CI.bca of his
    R package ``resample`` does.
    """
    from scipy.special import ndtr, stdtrit

    quantile = math.sqrt(tasks / (tasks - 1)) * stdtrit(tasks - 1, 1 - (1 - confidence) / 2)
    return float(1 - 2 * ndtr(-quantile))


def bca(units: Floats, seed: int, confidence: float, resamples: int) -> Floats:
    """BCa interval ends (rows, 2) of rows of whole numbers (Efron and Tibshirani 1993, 14.3 and 15.4).

    Every operation is done in scipy's order, so that the ends are equal bit for bit. An end may be NaN
    where the resampled means are all on one side of the mean.
    """
    from scipy.special import ndtr, ndtri
    from scipy.stats import quantile

    ends = np.empty((len(units), 2))
    z_low = float(ndtri((1 - confidence) / 2))
    for rows, means in resampled_means(units, seed, resamples):
        mean = units[rows].mean(axis=1, keepdims=True)
        below = np.count_nonzero(means < mean, axis=1) + np.count_nonzero(means <= mean, axis=1)
        with np.errstate(all="ignore"):
            bias = ndtri(below.astype(np.float64) / (2 * resamples))
            skew = _acceleration(units[rows])
            shift_low, shift_high = bias + z_low, bias - z_low
            levels = [ndtr(bias + shift / (1 - skew * shift)) for shift in (shift_low, shift_high)]
        at = np.stack(levels, axis=-1)
        defined = np.isfinite(at) & np.isfinite(bias)[:, None]
        found = quantile(means, np.where(defined, at, 0.5), axis=-1)
        ends[rows] = np.where(defined, found, np.nan)
    return ends


def _acceleration(units: Floats) -> Floats:
    n = float(units.shape[1])
    left_out = (units.sum(axis=1, keepdims=True) - units) / (n - 1)
    spread = (n - 1) * (left_out.mean(axis=1, keepdims=True) - left_out)
    cubes, squares = (spread**3).sum(axis=1) / n**3, (spread**2).sum(axis=1) / n**2
    # Powers of scalars, as in a plain scipy call: numpy's power of an array may differ in the last bit.
    result: Floats = 1 / 6 * cubes / np.array([square ** (3 / 2) for square in squares])
    return result


def wilson(value: float, tasks: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval (1927) of a share of ``tasks``; never empty, even at 0 and 1."""
    if tasks < 1 or not 0 <= value <= 1:
        raise ValueError(f"no interval for a share of {value} of {tasks} tasks")
    z = NormalDist().inv_cdf(1 - (1 - confidence) / 2)
    centre = value + z * z / (2 * tasks)
    half = z * math.sqrt(value * (1 - value) / tasks + z * z / (4 * tasks * tasks))
    low, high = (centre - half) / (1 + z * z / tasks), (centre + half) / (1 + z * z / tasks)
    # At 0 and 1 the two terms are equal but for rounding.
    return (0.0 if value == 0 else max(low, 0.0)), (1.0 if value == 1 else min(high, 1.0))


def running_mean(values: Sequence[float], keep: float = 0.9) -> list[float]:
    """Return the exponentially weighted mean of the values up to each one, without bias at the start.

    Each step multiplies the weight of all earlier values by ``keep``; the sum is divided by the sum of the weights.
    """
    means, total, weight = [], 0.0, 0.0
    for value in values:
        total, weight = keep * total + (1 - keep) * value, keep * weight + (1 - keep)
        means.append(total / weight)
    return means

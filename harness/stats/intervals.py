"""Confidence intervals of means over tasks: the BCa bootstrap, and Wilson's interval where BCa is unreliable."""

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
"""Number of tasks above 0, and below 1, that BCa needs; with fewer its coverage is far below nominal."""
FEW_TASKS = 50
"""With fewer tasks the note under a table says so."""
SMALL_SAMPLE = 30
"""With fewer tasks BCa uses a level above the nominal one, at which its coverage would be too low."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over tasks with its confidence interval."""

    value: float
    low: float
    high: float
    method: str
    """``bca``, ``bca-small`` (fewer than SMALL_SAMPLE tasks) or ``wilson``."""
    tasks: int
    """Number of tasks."""


def intervals(
    values: ArrayLike,
    denominator: ArrayLike = 1,
    seed: int = 0,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
) -> list[Interval]:
    """Return the mean over tasks of each row, with a confidence interval for the mean over all tasks of this kind.

    The interval is the BCa bootstrap over tasks. Its ends equal, bit for bit, those of
    ``scipy.stats.bootstrap(…, method="BCa", rng=numpy.random.default_rng(seed))`` for the row times its denominator.
    With fewer than 30 tasks it is computed at the level of ``small_sample_level`` (``bca-small``). Wilson's interval
    with n = tasks replaces it if fewer than five tasks have a value above 0, fewer than five have one below 1, all
    values are equal, or BCa gives no valid ends.

    Args:
        values: shape (rows, tasks) or (tasks,), in [0, 1]; tasks sorted by id, as the resamples depend on the order.
        denominator: scale that makes the values whole numbers, for all rows or one per row; see ``to_units``.
        seed: seed of the resampling.
        confidence: nominal coverage, between 0 and 1.
        resamples: number of bootstrap resamples.

    Raises:
        ValueError: as ``to_units``; also for values below 0, or a confidence or number of resamples out of range.
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
    bca_ends = bca(units[rows], seed, level, resamples) / scale[rows, None]
    # With too few resamples an end may be undefined, or the width zero; these rows keep Wilson's interval.
    valid = np.isfinite(bca_ends).all(axis=1) & (bca_ends[:, 0] < bca_ends[:, 1])
    ends[rows[valid]] = bca_ends[valid]
    methods = np.full(len(units), "wilson", dtype=object)
    methods[rows[valid]] = "bca-small" if small else "bca"
    return [
        Interval(float(value), float(low), float(high), str(method), tasks)
        for value, (low, high), method in zip(centres, ends, methods, strict=True)
    ]


def small_sample_level(confidence: float, tasks: int) -> float:
    """Return the level at which a bootstrap of few values has the nominal coverage (Hesterberg 2015, arXiv 1411.5279).

    Resampled means of n values have a standard deviation too small by √((n − 1)/n), and the normal quantile should be
    that of Student's t with n − 1 degrees of freedom. A higher level corrects both, as in CI.bca of his R package
    ``resample``.
    """
    from scipy.special import ndtr, stdtrit

    quantile = math.sqrt(tasks / (tasks - 1)) * stdtrit(tasks - 1, 1 - (1 - confidence) / 2)
    return float(1 - 2 * ndtr(-quantile))


def bca(units: Floats, seed: int, confidence: float, resamples: int) -> Floats:
    """Return the ends of BCa intervals, shape (rows, 2) (Efron and Tibshirani 1993, sections 14.3 and 15.4).

    Operations are in scipy's order, so that the ends are equal bit for bit. An end is NaN if all resampled means are on
    one side of the mean.

    Args:
        units: shape (rows, tasks), whole numbers.
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
        probabilities = np.stack(levels, axis=-1)
        defined = np.isfinite(probabilities) & np.isfinite(bias)[:, None]
        quantiles = quantile(means, np.where(defined, probabilities, 0.5), axis=-1)
        ends[rows] = np.where(defined, quantiles, np.nan)
    return ends


def _acceleration(units: Floats) -> Floats:
    """Return BCa's acceleration of each row, from the means with one task left out (jackknife); shape (rows,)."""
    n = float(units.shape[1])
    jackknife = (units.sum(axis=1, keepdims=True) - units) / (n - 1)
    spread = (n - 1) * (jackknife.mean(axis=1, keepdims=True) - jackknife)
    cubes, squares = (spread**3).sum(axis=1) / n**3, (spread**2).sum(axis=1) / n**2
    # Powers of scalars, as in a plain scipy call: numpy's power of an array may differ in the last bit.
    result: Floats = 1 / 6 * cubes / np.array([square ** (3 / 2) for square in squares])
    return result


def wilson(value: float, tasks: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return Wilson's score interval (1927) of a share of ``tasks``; it has a positive width even at 0 and 1.

    Raises:
        ValueError: there is no task, or the share is not in [0, 1].
    """
    if tasks < 1 or not 0 <= value <= 1:
        raise ValueError(f"no interval for a share of {value} of {tasks} tasks")
    z = NormalDist().inv_cdf(1 - (1 - confidence) / 2)
    centre = value + z * z / (2 * tasks)
    half = z * math.sqrt(value * (1 - value) / tasks + z * z / (4 * tasks * tasks))
    low, high = (centre - half) / (1 + z * z / tasks), (centre + half) / (1 + z * z / tasks)
    # At 0 and 1 one end equals the share, except for rounding.
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

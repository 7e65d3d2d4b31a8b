"""Values of tasks for the tests of intervals and comparisons."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap

Floats = NDArray[np.float64]


def ones(k: int, n: int) -> Floats:
    """Return k ones, then n − k zeros."""
    return np.r_[np.ones(k), np.zeros(n - k)]


def scores(rng: np.random.Generator, tasks: int, n: int) -> Floats:
    """Return values like those of a benchmark, multiples of 1/n: about half are 0, the rest anywhere in [0, 1]."""
    chance = np.where(rng.random(tasks) < 0.5, 0, rng.beta(0.6, 0.9, tasks))
    return rng.binomial(n, chance) / n


def scipy_ends(units: Floats, seed: int, method: str) -> tuple[float, float]:
    """Return the interval of scipy.stats.bootstrap."""
    interval = bootstrap((units,), np.mean, method=method, rng=np.random.default_rng(seed)).confidence_interval
    return float(interval.low), float(interval.high)

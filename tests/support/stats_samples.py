"""Values for the tests of intervals and comparisons."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap

Floats = NDArray[np.float64]


def ones(k: int, n: int) -> Floats:
    """k tasks solved, then n − k not."""
    return np.r_[np.ones(k), np.zeros(n - k)]


def scores(rng: np.random.Generator, tasks: int, n: int) -> Floats:
    """Values that look like a benchmark's: half the tasks at 0, the rest anywhere, in n-ths."""
    chance = np.where(rng.random(tasks) < 0.5, 0, rng.beta(0.6, 0.9, tasks))
    return rng.binomial(n, chance) / n


def scipy_ends(units: Floats, seed: int, method: str) -> tuple[float, float]:
    """The interval of a plain call of scipy.stats.bootstrap."""
    found = bootstrap((units,), np.mean, method=method, rng=np.random.default_rng(seed)).confidence_interval
    return float(found.low), float(found.high)

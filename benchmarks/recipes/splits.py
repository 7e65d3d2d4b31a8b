"""How often tests call training runs of one recipe different, from the scores of many runs of it."""

from __future__ import annotations

import itertools

import numpy as np

from benchmarks.common.population import Floats
from benchmarks.recipes.methods import chosen
from harness.stats.crossed_variance import difference_variance
from harness.stats.paired_test import SIGNIFICANCE, compare


def different_pairs(scores: Floats, denominator: int = 1, seed: int = 0) -> float:
    """Return the share of all pairs of runs that the test over tasks calls different at p < 0.05, uncorrected.

    The pairs depend on each other, so that the share describes these runs and has no simple standard error.

    Args:
        scores: of training runs of one recipe, shape (runs, tasks).
        denominator: scale that makes the scores whole numbers.
    """
    pairs = np.array(list(itertools.combinations(range(len(scores)), 2)))
    comparisons = compare(scores[pairs[:, 0]], scores[pairs[:, 1]], denominator, seed)
    return float(np.mean([comparison.p < SIGNIFICANCE for comparison in comparisons]))


def different_splits(scores: Floats, runs: int, splits: int = 1_000, seed: int = 0) -> float:
    """Return the share of random splits into twice so many runs that the test of recipes calls different at p < 0.05.

    Args:
        scores: of training runs of one recipe, shape (at least 2 × runs, tasks), not all equal.

    Raises:
        ValueError: there are too few runs.
    """
    if len(scores) < 2 * runs:
        raise ValueError(f"{len(scores)} runs cannot be split into twice {runs}")
    rng = np.random.default_rng([seed, runs])
    different = 0
    for _ in range(splits):
        order = rng.permutation(len(scores))
        variance = difference_variance(scores[order[:runs]], scores[order[runs : 2 * runs]])
        different += bool(abs(variance.delta) > chosen(variance))
    return different / splits

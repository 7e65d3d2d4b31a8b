"""Tests of paired differences by the signs of tasks: McNemar's, and sign flips."""

from __future__ import annotations

import numpy as np

from harness.stats.bootstrap import ROUNDED, Floats, unsigned_seed

EXACT_FLIPS = 16
"""Number of differing tasks up to which all sign flips are enumerated."""

_BLOCK = 1 << 21


def sign_tests(units: Floats, scale: Floats, seed: int, flips: int) -> list[tuple[float, str]]:
    """Return the two-sided p-value and the name of the test for each row of paired differences.

    Args:
        units: shape (rows, tasks), whole numbers, so that equal sums compare as equal.
        scale: of each row, as ``to_units`` returns it.
        flips: number of random sign flips where not all are enumerated.
    """
    results: dict[int, tuple[float, str]] = {}
    # Rounding to 12 decimals separates equal sums by up to one unit per task; they still count as reached.
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
    """Return McNemar's exact two-sided p-value: a binomial test with probability 1/2 of the differing tasks.

    Without differing tasks it is 1.
    """
    n, fewer = int(won) + int(lost), min(int(won), int(lost))
    tail = coefficient = 1  # binomial coefficients as integers, so that the result is exact to the last bit
    for i in range(fewer):
        coefficient = coefficient * (n - i) // (i + 1)
        tail += coefficient
    return min(1.0, 2 * tail / (1 << n))


def _exact_flips(differences: Floats, slack: float) -> float:
    """Return the share of all sign flips whose |sum| reaches the observed one, up to ``slack``."""
    sums = np.zeros(1)
    for difference in differences:
        sums = np.concatenate((sums + difference, sums - difference))
    return float((np.abs(sums) >= abs(differences.sum()) - slack).mean())


def _random_flips(units: Floats, slack: Floats, seed: int, flips: int) -> Floats:
    """Return, for each row, how many random sign flips reach the observed |sum|; rows share the flips."""
    observed = np.abs(units.sum(axis=1)) - slack
    # Another seed than the bootstrap's, so that test and interval are independent.
    rng = np.random.default_rng([unsigned_seed(seed), 1])
    reached: Floats = np.zeros(len(units))
    block = max(1, _BLOCK // max(units.shape))
    for start in range(0, flips, block):
        height = min(block, flips - start)
        signs = rng.integers(0, 2, (height, units.shape[1])).astype(np.float64) * 2 - 1
        reached += (np.abs(signs @ units.T) >= observed).sum(axis=0)
    return reached

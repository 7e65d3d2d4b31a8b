"""The probability that further samples of a test output change its two attempts, bounded under Pitman and Yor's urn."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from harness.stats.bootstrap import Floats

CONCENTRATION, DISCOUNT = 0.5, 0.25
"""θ and d of ``change_bound``, with which the measured error stays below the risk (benchmarks/stopping.md)."""


def change_bound(counts: Sequence[int], failures: int, left: int) -> float:
    """Return an upper bound on the probability that ``left`` further samples change the two best grids or their order.

    Samples are modelled by a Pólya urn with new colours, the two-parameter Poisson–Dirichlet process (Pitman and Yor
    1997). After m samples with K distinct grids, the next one is a grid with c votes with weight c − d, a failure with
    the number of failures as weight, and a new grid with weight θ + dK; the weights sum to m + θ. The bound is the sum
    of three exact values under this model: the probability that the second grid reaches the first, those that
    another grid reaches the second, and the expected number of new grids that reach the second. A tie counts as a
    change.

    Args:
        counts: votes for each distinct grid, in any order.

    Returns:
        A number in [0, 1], rounded to 9 decimals, so that machines with different rounding agree.
    """
    first, second, *others = (*sorted(counts, reverse=True), 0, 0)
    mass = sum(counts) + failures + CONCENTRATION
    total = _overtake_probability(first, second, mass, left)
    for count, grids in Counter(filter(None, others)).items():
        if total >= 1:
            break
        total += grids * _overtake_probability(second, count, mass, left)
    unseen = CONCENTRATION + DISCOUNT * np.count_nonzero(counts)
    return round(min(total + _expected_newcomers(second, unseen, mass, left), 1.0), 9)


@lru_cache(maxsize=1 << 16)
def _overtake_probability(leader: int, rival: int, mass: float, left: int) -> float:
    """Return the probability that a grid with ``rival`` votes reaches one with ``leader`` votes in ``left`` samples."""
    leader_weight, rival_weight = max(leader - DISCOUNT, 0.0), max(rival - DISCOUNT, 0.0)
    rest = mass - leader_weight - rival_weight
    return _sum_over_overtakes(leader - rival, leader_weight, _log_weights(rival_weight, left), rest, mass, left)


@lru_cache(maxsize=1 << 16)
def _expected_newcomers(leader: int, unseen: float, mass: float, left: int) -> float:
    """Return the expected number of grids not sampled yet that end with at least as many votes as ``leader``."""
    leader_weight = max(leader - DISCOUNT, 0.0)
    sizes = np.arange(2, left + 1)
    grown = np.cumsum(np.log((sizes - 1 - DISCOUNT) / sizes))
    log_weights = np.concatenate(([-math.inf], math.log(unseen) + np.concatenate(([0.0], grown))))[: left + 1]
    return _sum_over_overtakes(leader, leader_weight, log_weights, mass - leader_weight + DISCOUNT, mass, left)


def _sum_over_overtakes(
    lead: int, leader_weight: float, log_rival: Floats, rest: float, mass: float, left: int
) -> float:
    """Return the sum, over all x and y with y ≥ lead + x, of P(leader gets x samples and the rival gets y).

    Each probability is a product of three factors, for x, y and left − x − y. They are scaled like negative binomial
    distributions whose means sum to ``left``, which keeps them in the range of floats and cancels out in the end.

    Args:
        log_rival: for y = 0 … left, log of the urn's weight of y samples of the rival; shape (left + 1,).
        leader_weight, rest, mass: the urn's weights of the leader, of all but leader and rival, and of everything.
    """
    tilt, stay = math.log(max(left, 1) / (mass + left)), math.log(mass / (mass + left))
    tilts = np.arange(left + 1) * tilt
    leader = np.exp(_log_weights(leader_weight, left) + tilts + leader_weight * stay)
    rival = np.exp(log_rival + tilts + (mass - leader_weight - rest) * stay)
    others = np.exp(_log_weights(rest, left) + tilts + rest * stay)[::-1]
    total = sum(
        float(leader[x]) * float(rival[lead + x : left - x + 1] @ others[lead + 2 * x :])
        for x in range((left - lead) // 2 + 1)
    )
    return total / math.exp(float(_log_weights(mass, left)[left]) + left * tilt + mass * stay)


@lru_cache(maxsize=1 << 12)
def _log_weights(weight: float, left: int) -> Floats:
    """Return log(weight (weight + 1) … (weight + x − 1) / x!) for x = 0 … left, the urn's weight of x samples."""
    x = np.arange(1, left + 1)
    with np.errstate(divide="ignore"):
        return np.concatenate(([0.0], np.cumsum(np.log((weight + x - 1) / x))))

"""Distributions of the votes that wrong grids get in a random subset of the predictions."""

from __future__ import annotations

import math
from collections import Counter
from functools import lru_cache

import numpy as np

from harness.stats.bootstrap import Floats

NEGLIGIBLE = 1e-24
"""Smaller probabilities are omitted; together they do not change a digit of the result."""
_MANY = 3
"""From this many grids with equal counts on, the binomial theorem is used."""
_SMALL_SHARE, _SMALLEST_MASS = 1e-12, 1e-200
"""Below this share of a tie, or probability, the binomial theorem would lose digits."""


def rival_distributions(rivals: Counter[int], j: int, remaining: int, top: int, p: float) -> list[Floats]:
    """Return the joint distributions of the votes that wrong grids (rivals) get in a random subset of the predictions.

    There is one for each number of rivals ahead, which are those with more than j votes.

    Args:
        rivals: number of wrong grids by their number of predictions, each at least j.
        j: votes for the exact grid in the subset.
        remaining: number of other predictions in the subset.
        top: distributions for 0 … ``top`` − 1 rivals ahead are returned.
        p: probability that a prediction is in the subset.

    Returns:
        For each number of rivals ahead, an array of probabilities, indexed by (number of rivals with j votes, votes for
        all other rivals). More than ``remaining`` votes and negligible probabilities are omitted.
    """
    tables = [np.ones((1, 1)), *(np.zeros((1, 1)) for _ in range(top - 1))]
    for position, (size, times) in enumerate(sorted(rivals.items(), key=lambda item: -item[1])):
        weights = binomial(size, p)[: remaining + 1]
        below, tie = weights[:j], float(weights[j]) if j < len(weights) else 0.0
        ahead = np.where(weights < NEGLIGIBLE, 0.0, weights)
        ahead[: j + 1] = 0.0
        if position == 0 and times >= _MANY and below.sum() > max(_SMALL_SHARE * tie, _SMALLEST_MASS):
            tables = _equal_rivals(below, tie, ahead, times, j, remaining, top)
            continue
        for _ in range(times):
            after = [_add_rival(table, below, tie, j, remaining) for table in tables]
            for number in range(1, top):
                after[number] = _add_padded(after[number], _convolve_rows(tables[number - 1], ahead, remaining))
            tables = after
    return tables


def _equal_rivals(
    below: Floats, tie: float, ahead: Floats, times: int, j: int, remaining: int, top: int
) -> list[Floats]:
    """Return ``rival_distributions`` for rivals with equal counts, by the binomial theorem.

    Args:
        below: probabilities of 0 … j − 1 votes for one rival.
        tie: probability of j votes.
        ahead: probabilities of more than j votes, by number of votes (zero up to j).
        times: number of rivals.
    """
    mass = float(below.sum())
    most = remaining // j
    powers = _sum_distributions(below / mass, max(0, times - top + 1 - most), times, remaining)
    tables: list[Floats] = []
    factor: Floats = np.ones(1)
    for number in range(top):
        rest = times - number
        if rest < 0:
            tables.append(np.zeros((1, 1)))
            continue
        chances = _binomial_pmf(rest, tie / (mass + tie)) if tie else np.ones(1)
        chances = math.comb(times, number) * (mass + tie) ** rest * chances[: most + 1]
        table = np.zeros((len(chances), len(powers[rest])))
        for tied, chance in enumerate(chances.tolist()):
            power = powers[rest - tied]
            table[tied, : len(power)] = chance * power
        tables.append(_convolve_rows(table, factor, remaining))
        factor = _convolve(factor, ahead, remaining)
    return tables


def _sum_distributions(chances: Floats, first: int, last: int, remaining: int) -> dict[int, Floats]:
    """Return the distributions of sums of ``first`` to ``last`` independent variables, for sums up to ``remaining``."""
    power: Floats = np.ones(1)
    square, bits = chances, first
    while bits:
        if bits & 1:
            power = _convolve(power, square, remaining)
        bits >>= 1
        square = _convolve(square, square, remaining) if bits else square
    distributions = {first: power}
    for number in range(first + 1, last + 1):
        distributions[number] = power = _convolve(power, chances, remaining)
    return distributions


def _convolve(one: Floats, other: Floats, remaining: int) -> Floats:
    """Return the distribution of the sum of two independent variables, for sums up to ``remaining``."""
    return np.asarray(np.convolve(one, other)[: remaining + 1], np.float64)


def _add_rival(table: Floats, below: Floats, tie: float, j: int, remaining: int) -> Floats:
    """Return the distribution with one more rival that gets fewer than j votes, or exactly j."""
    lower = _convolve_rows(table, below, remaining)
    after = np.zeros((min(len(table), remaining // j) + 1, max(lower.shape[1], table.shape[1])))
    after[: len(lower), : lower.shape[1]] = lower
    after[1:, : table.shape[1]] += tie * table[: len(after) - 1]
    return after


def _convolve_rows(table: Floats, weights: Floats, remaining: int) -> Floats:
    """Return each row of ``table`` convolved with the distribution ``weights`` of one more rival's votes."""
    used = np.flatnonzero(weights)
    if not len(used):
        return np.zeros((1, 1))
    first, last = int(used[0]), int(used[-1])
    rows, width = len(table), table.shape[1] + last - first
    # All rows in one convolution, with zeros between them.
    padded = np.zeros((rows, width))
    padded[:, : table.shape[1]] = table
    convolved = np.convolve(padded.ravel(), weights[first : last + 1])[: rows * width].reshape(rows, width)
    after = np.zeros((rows, min(width + first, remaining + 1)))
    after[:, first:] = convolved[:, : after.shape[1] - first]
    return _trim(after)


def _trim(table: Floats) -> Floats:
    """Return the array without trailing rows and columns of negligible probabilities."""
    shown = table >= NEGLIGIBLE
    rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
    return table[: rows[-1] + 1, : columns[-1] + 1] if len(rows) else np.zeros((1, 1))


def _add_padded(one: Floats, other: Floats) -> Floats:
    """Return the sum of two arrays of different shapes, padded with zeros."""
    total = np.zeros(np.maximum(one.shape, other.shape))
    for part in (one, other):
        total[: part.shape[0], : part.shape[1]] += part
    return total


@lru_cache(maxsize=4096)
def binomial(size: int, p: float) -> Floats:
    """Return ``_binomial_pmf``, cached; the array must not be changed."""
    return _binomial_pmf(size, p)


def _binomial_pmf(size: int, p: float) -> Floats:
    """Return the binomial probabilities of 0 … size successes in ``size`` trials, 0 < p < 1."""
    log_p, log_q = math.log(p), math.log1p(-p)
    logs = np.empty(size + 1)
    coefficient = 1
    for t in range(size + 1):
        # Integers, because a sum of logarithms would lose digits.
        logs[t] = math.log(coefficient) + t * log_p + (size - t) * log_q
        coefficient = coefficient * (size - t) // (t + 1)
    chances: Floats = np.exp(logs)
    return chances

"""Exact curves: expected scores of a random subset of k (or m) of the n predictions.

Subsets are without replacement, and the expectation is computed, not simulated. Sampling with replacement would bias
pass_n low, and the first k predictions are no random subset because views cycle through the symmetries.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from harness.voting.ranking import top_k_probability

Floats = NDArray[np.float64]
_NEGLIGIBLE = 1e-24
"""Smaller probabilities are omitted; together they do not change a digit of the result."""
_MANY = 3
"""From this many grids with equal counts on, the binomial theorem is used."""
_SMALL_SHARE, _SMALLEST_MASS = 1e-12, 1e-200
"""Below this share of a tie, or probability, the binomial theorem would lose digits."""


def curve_points(n: int) -> tuple[int, ...]:
    """Return the subset sizes of a curve: the powers of 2 below n, and n.

    Raises:
        ValueError: n is below 1.
    """
    if n < 1:
        raise ValueError(f"a curve needs at least one prediction, not {n}")
    points = [1 << i for i in range(n.bit_length()) if 1 << i < n]
    return (*points, n)


@lru_cache(maxsize=16384)
def _pass(n: int, exact: int, k: int) -> float:
    """Return pass@k of one test output."""
    total = math.comb(n, k)
    # Python divides big integers with correct rounding, so the result is exact to the last bit.
    return (total - math.comb(n - exact, k)) / total


def pass_at_k(n: int, exact: NDArray[np.integer] | Sequence[int], ks: Sequence[int]) -> Floats:
    """Return pass@k = 1 − C(n−c, k)/C(n, k) (Chen et al. 2021, arXiv 2107.03374).

    Args:
        n: number of predictions per test output.
        exact: c, the number of exact predictions per test output; any shape.
        ks: subset sizes, each in [1, n].

    Returns:
        Shape (len(ks), *exact.shape).

    Raises:
        ValueError: a subset size or a number of exact predictions is out of range.
    """
    counts = np.asarray(exact, dtype=np.int64)
    _check_sizes(ks, n)
    if counts.size and not 0 <= counts.min() <= counts.max() <= n:
        raise ValueError(f"exact predictions must be in [0, {n}]")
    distinct, inverse = np.unique(counts, return_inverse=True)
    table = np.array([[_pass(n, int(c), k) for c in distinct] for k in ks])
    curve: Floats = table[:, inverse.reshape(counts.shape)]
    return curve


def vote_at_m(exact: int, wrong: Sequence[int], failures: int, ms: Sequence[int], ks: Sequence[int] = (1, 2)) -> Floats:
    """Return vote_k@m: the mean of vote_k over all subsets of m predictions, with ties in count broken at random.

    Args:
        exact: votes for the exact grid.
        wrong: votes for each distinct wrong grid, in any order.
        failures: predictions without a grid.
        ms: subset sizes, each in [1, n], where n is the sum of all counts.
        ks: numbers of attempts.

    Returns:
        Shape (len(ks), len(ms)).

    Raises:
        ValueError: a count is negative, or a subset size is out of range.
    """
    # Python integers, because numpy's overflow in the binomials.
    exact, failures, wrong = int(exact), int(failures), [int(size) for size in wrong]
    if min((exact, failures, *wrong)) < 0:
        raise ValueError("counts of predictions cannot be negative")
    n = exact + sum(wrong) + failures
    _check_sizes(ms, n)
    sizes = tuple(sorted(size for size in wrong if size))
    return _vote_curve(exact, sizes, failures, tuple(ms), tuple(ks)).copy()


@lru_cache(maxsize=4096)
def _vote_curve(exact: int, sizes: tuple[int, ...], failures: int, ms: tuple[int, ...], ks: tuple[int, ...]) -> Floats:
    if not exact:
        return np.zeros((len(ks), len(ms)))
    return np.stack([_vote_point(exact, sizes, failures, m, ks) for m in ms], axis=1)


def _vote_point(exact: int, sizes: tuple[int, ...], failures: int, m: int, ks: tuple[int, ...]) -> Floats:
    """Return vote_k@m for one m, shape (len(ks),): a sum over the number j of exact predictions in the subset.

    Every prediction is taken to be in the subset independently with probability m / n; dividing by the probability that
    the subset has m predictions gives subsets without replacement. All terms stay in the range of floats for any n.
    """
    n = exact + sum(sizes) + failures
    if m == n:
        ahead, tied = sum(size > exact for size in sizes), sizes.count(exact)
        return np.array([top_k_probability(ahead, tied, k) for k in ks])
    total = np.zeros(len(ks))
    for j in range(1, min(exact, m) + 1):
        weight = _binomial(exact, m / n)[j]
        if weight < _NEGLIGIBLE:
            continue
        # Grids with fewer than j votes can neither lead nor tie: with the failures they form one pool.
        rivals = Counter(size for size in sizes if size >= j)
        pool = failures + sum(size for size in sizes if size < j)
        fill = _binomial(pool, m / n)[: m - j + 1]
        for ahead, table in enumerate(_rival_distributions(rivals, j, m - j, max(ks), m / n)):
            chances = _fill_probabilities(table, fill, j, m - j)
            shares = np.clip((np.array(ks)[:, None] - ahead) / (np.arange(len(chances)) + 1), 0.0, 1.0)
            total += weight * (shares @ chances)
    point: Floats = np.clip(total / _binomial(n, m / n)[m], 0.0, 1.0)
    return point


def _rival_distributions(rivals: Counter[int], j: int, remaining: int, top: int, p: float) -> list[Floats]:
    """Return the joint distributions of the rivals' votes in the subset, by the number of rivals with over j votes.

    Args:
        rivals: number of wrong grids by their number of predictions, each at least j.
        j: votes for the exact grid in the subset.
        remaining: size of the subset without those.
        top: distributions for 0 … ``top`` − 1 rivals ahead are returned.
        p: probability that a prediction is in the subset.

    Returns:
        For each number of rivals ahead, an array of probabilities, indexed by (number of rivals with j votes, votes for
        all other rivals). More than ``remaining`` votes and negligible probabilities are omitted.
    """
    tables = [np.ones((1, 1)), *(np.zeros((1, 1)) for _ in range(top - 1))]
    for position, (size, times) in enumerate(sorted(rivals.items(), key=lambda item: -item[1])):
        weights = _binomial(size, p)[: remaining + 1]
        below, tie = weights[:j], float(weights[j]) if j < len(weights) else 0.0
        ahead = np.where(weights < _NEGLIGIBLE, 0.0, weights)
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
    """Return ``_rival_distributions`` for rivals with equal counts, by the binomial theorem.

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
    shown = table >= _NEGLIGIBLE
    rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
    return table[: rows[-1] + 1, : columns[-1] + 1] if len(rows) else np.zeros((1, 1))


def _add_padded(one: Floats, other: Floats) -> Floats:
    """Return the sum of two arrays of different shapes, padded with zeros."""
    total = np.zeros(np.maximum(one.shape, other.shape))
    for part in (one, other):
        total[: part.shape[0], : part.shape[1]] += part
    return total


def _fill_probabilities(table: Floats, fill: Floats, j: int, remaining: int) -> Floats:
    """Return, by the number of tied rivals, the probability that the pool supplies all votes that the rivals do not.

    Args:
        fill: probability of 0, 1, 2 … predictions from the pool.
    """
    tied, others = np.ogrid[: table.shape[0], : table.shape[1]]
    left = remaining - j * tied - others
    possible = (left >= 0) & (left < len(fill))
    chances: Floats = np.where(possible, table * fill[np.where(possible, left, 0)], 0.0).sum(axis=1)
    return chances


@lru_cache(maxsize=4096)
def _binomial(size: int, p: float) -> Floats:
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


def _check_sizes(sizes: Sequence[int], n: int) -> None:
    for size in sizes:
        if not 1 <= size <= n:
            raise ValueError(f"a subset of {size} cannot be drawn from {n} predictions")

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

from harness.stats.bootstrap import Floats
from harness.voting.ranking import top_k_probability
from harness.voting.rival_votes import NEGLIGIBLE, binomial, rival_distributions


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
    """Return ``vote_at_m`` of checked, sorted, positive counts."""
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
        weight = binomial(exact, m / n)[j]
        if weight < NEGLIGIBLE:
            continue
        # Grids with fewer than j votes can neither lead nor tie: with the failures they form one pool.
        rivals = Counter(size for size in sizes if size >= j)
        pool = failures + sum(size for size in sizes if size < j)
        fill = binomial(pool, m / n)[: m - j + 1]
        for ahead, table in enumerate(rival_distributions(rivals, j, m - j, max(ks), m / n)):
            chances = _fill_probabilities(table, fill, j, m - j)
            shares = np.clip((np.array(ks)[:, None] - ahead) / (np.arange(len(chances)) + 1), 0.0, 1.0)
            total += weight * (shares @ chances)
    point: Floats = np.clip(total / binomial(n, m / n)[m], 0.0, 1.0)
    return point


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


def _check_sizes(sizes: Sequence[int], n: int) -> None:
    """Raise ValueError if a subset size is not in [1, n]."""
    for size in sizes:
        if not 1 <= size <= n:
            raise ValueError(f"a subset of {size} cannot be drawn from {n} predictions")

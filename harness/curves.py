"""Exact curves: what a random subset of k (or m) of the n predictions would have scored.

Subsets are drawn without replacement and enumerated by formula, never sampled: drawing with replacement
biases pass_n low, and a prefix is not a random subset because views cycle through the symmetries.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from harness.voting import tie_share

Floats = NDArray[np.float64]


def curve_points(n: int) -> tuple[int, ...]:
    """1, 2, 4 … up to n, n itself included."""
    if n < 1:
        raise ValueError(f"a curve needs at least one prediction, not {n}")
    points = [1 << i for i in range(n.bit_length()) if 1 << i < n]
    return (*points, n)


@lru_cache(maxsize=16384)
def _pass(n: int, exact: int, k: int) -> float:
    total = math.comb(n, k)
    # Python divides big integers with correct rounding, so the result is exact to the last bit.
    return (total - math.comb(n - exact, k)) / total


def pass_at_k(n: int, exact: NDArray[np.integer] | Sequence[int], ks: Sequence[int]) -> Floats:
    """pass@k = 1 − C(n−c, k)/C(n, k) of Chen et al. 2021 (arXiv 2107.03374).

    Args:
        n: predictions a test output.
        exact: c, the number of exact predictions, of any shape.
        ks: subset sizes, each in [1, n].

    Returns:
        Shape (len(ks), *exact.shape).
    """
    counts = np.asarray(exact, dtype=np.int64)
    _check_sizes(ks, n)
    if counts.size and not 0 <= counts.min() <= counts.max() <= n:
        raise ValueError(f"exact predictions must be in [0, {n}]")
    distinct, where = np.unique(counts, return_inverse=True)
    table = np.array([[_pass(n, int(c), k) for c in distinct] for k in ks])
    found: Floats = table[:, where.reshape(counts.shape)]
    return found


def vote_at_m(exact: int, wrong: Sequence[int], failures: int, ms: Sequence[int], ks: Sequence[int] = (1, 2)) -> Floats:
    """vote_k@m: the expectation of vote_k over all subsets of m predictions, ties by count left to chance.

    Args:
        exact: votes on the exact grid.
        wrong: votes on each wrong grid, in any order.
        failures: predictions without a grid.
        ms: subset sizes, each in [1, n] with n the sum of all the counts.
        ks: attempts.

    Returns:
        Shape (len(ks), len(ms)).
    """
    # Python's whole numbers, for numpy's overflow in the binomials.
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
    n = exact + sum(sizes) + failures
    if m == n:
        ahead, tied = sum(size > exact for size in sizes), sizes.count(exact)
        return np.array([tie_share(ahead, tied, k) for k in ks])
    total = np.zeros(len(ks))
    for j in range(1, min(exact, m) + 1):
        # Groups below j votes can neither lead nor tie: with the failures they are one pool that fills places.
        rivals = Counter(size for size in sizes if size >= j)
        pool = failures + sum(size for size in sizes if size < j)
        ways = _standings(rivals, j, m - j, max(ks), m / n)
        weight = _binomial(exact, m / n)[j]
        fill = _binomial(pool, m / n)[: m - j + 1]
        filled = ways[:, :, m - j - len(fill) + 1 :] @ fill[::-1]
        total += weight * (_tie_shares(ways.shape[0], ways.shape[1], ks) * filled).sum(axis=(1, 2))
    point: Floats = np.clip(total / _binomial(n, m / n)[m], 0.0, 1.0)
    return point


def _standings(rivals: Counter[int], j: int, places: int, top: int, p: float) -> Floats:
    """Weights by (rivals ahead of j votes, rivals tied at j, places taken), fewer than ``top`` ahead.

    Each prediction is taken with chance p, independently; dividing by the chance of m taken in all gives
    the draw without replacement, and keeps every term within a float's range for any n.
    """
    ways = np.zeros((top, rivals.total() + 1, places + 1))
    ways[0, 0, 0] = 1.0
    seen = 0
    for size, times in sorted(rivals.items()):
        weights = _binomial(size, p)
        for _ in range(times):
            seen += 1
            after = np.zeros_like(ways)
            for t in range(min(size, places) + 1):
                source = ways[:, :seen, : places + 1 - t] * weights[t]
                if t < j:
                    after[:, :seen, t:] += source
                elif t == j:
                    after[:, 1 : seen + 1, t:] += source
                else:
                    after[1:, :seen, t:] += source[:-1]
            ways = after
    return ways


@lru_cache(maxsize=4096)
def _binomial(size: int, p: float) -> Floats:
    """The chances of 0 … size successes of ``size`` trials, 0 < p < 1."""
    log_p, log_q = math.log(p), math.log1p(-p)
    logs = np.empty(size + 1)
    ways = 1
    for t in range(size + 1):
        # Whole numbers, because a sum of logarithms would lose digits.
        logs[t] = math.log(ways) + t * log_p + (size - t) * log_q
        ways = ways * (size - t) // (t + 1)
    chances: Floats = np.exp(logs)
    return chances


def _tie_shares(most_ahead: int, most_tied: int, ks: tuple[int, ...]) -> Floats:
    ahead, tied = np.arange(most_ahead)[:, None], np.arange(most_tied)
    return np.stack([np.clip((k - ahead) / (tied + 1), 0.0, 1.0) for k in ks])


def _check_sizes(sizes: Sequence[int], n: int) -> None:
    for size in sizes:
        if not 1 <= size <= n:
            raise ValueError(f"a subset of {size} cannot be drawn from {n} predictions")

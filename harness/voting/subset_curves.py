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

from harness.voting.ranking import top_k_probability

Floats = NDArray[np.float64]
_NEGLIGIBLE = 1e-24
"""Chances below this are left out: all of them together change no digit of a result."""
_MANY = 3
"""So many groups of one size are worth the binomial theorem."""
_SMALL_SHARE, _SMALLEST_MASS = 1e-12, 1e-200
"""Where it would lose digits."""


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
    """vote_k@m for one m: the expectation over how many exact predictions are drawn.

    Each prediction is drawn with chance m / n, independently; dividing by the chance of m drawn in all gives the draw
    without replacement, and keeps every term within a float's range for any n.
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
        # Groups below j votes can neither lead nor tie: with the failures they are one pool that fills places.
        rivals = Counter(size for size in sizes if size >= j)
        pool = failures + sum(size for size in sizes if size < j)
        fill = _binomial(pool, m / n)[: m - j + 1]
        for ahead, ways in enumerate(_standings(rivals, j, m - j, max(ks), m / n)):
            chances = _filled(ways, fill, j, m - j)
            shares = np.clip((np.array(ks)[:, None] - ahead) / (np.arange(len(chances)) + 1), 0.0, 1.0)
            total += weight * (shares @ chances)
    point: Floats = np.clip(total / _binomial(n, m / n)[m], 0.0, 1.0)
    return point


def _standings(rivals: Counter[int], j: int, places: int, top: int, p: float) -> list[Floats]:
    """Weights of what rivals may draw, by how many of them are ahead of j votes: an array for 0 … ``top`` − 1.

    Returns:
        Arrays by (rivals tied at j, draws of all rivals that are not tied); what cannot fit into ``places`` is left
        out, and a chance that no sum of them could show.
    """
    ways = [np.ones((1, 1)), *(np.zeros((1, 1)) for _ in range(top - 1))]
    for place, (size, times) in enumerate(sorted(rivals.items(), key=lambda item: -item[1])):
        weights = _binomial(size, p)[: places + 1]
        below, tie = weights[:j], float(weights[j]) if j < len(weights) else 0.0
        ahead = np.where(weights < _NEGLIGIBLE, 0.0, weights)
        ahead[: j + 1] = 0.0
        if place == 0 and times >= _MANY and below.sum() > max(_SMALL_SHARE * tie, _SMALLEST_MASS):
            ways = _alike(below, tie, ahead, times, j, places, top)
            continue
        for _ in range(times):
            after = [_add(own, below, tie, j, places) for own in ways]
            for number in range(1, top):
                after[number] = _sum(after[number], _times(ways[number - 1], ahead, places))
            ways = after
    return ways


def _alike(below: Floats, tie: float, ahead: Floats, times: int, j: int, places: int, top: int) -> list[Floats]:
    """``_standings`` of rivals of one size, by the binomial theorem: how many are ahead, tied and below."""
    mass = float(below.sum())
    most = places // j
    powers = _powers(below / mass, max(0, times - top + 1 - most), times, places)
    ways: list[Floats] = []
    factor: Floats = np.ones(1)
    for number in range(top):
        rest = times - number
        if rest < 0:
            ways.append(np.zeros((1, 1)))
            continue
        chances = _chances(rest, tie / (mass + tie)) if tie else np.ones(1)
        chances = math.comb(times, number) * (mass + tie) ** rest * chances[: most + 1]
        own = np.zeros((len(chances), len(powers[rest])))
        for tied, chance in enumerate(chances.tolist()):
            power = powers[rest - tied]
            own[tied, : len(power)] = chance * power
        ways.append(_times(own, factor, places))
        factor = _convolved(factor, ahead, places)
    return ways


def _powers(chances: Floats, first: int, last: int, places: int) -> dict[int, Floats]:
    """The distributions of the sums of ``first`` to ``last`` independent draws, up to ``places``."""
    power: Floats = np.ones(1)
    square, bits = chances, first
    while bits:
        if bits & 1:
            power = _convolved(power, square, places)
        bits >>= 1
        square = _convolved(square, square, places) if bits else square
    found = {first: power}
    for number in range(first + 1, last + 1):
        found[number] = power = _convolved(power, chances, places)
    return found


def _convolved(one: Floats, other: Floats, places: int) -> Floats:
    return np.asarray(np.convolve(one, other)[: places + 1], np.float64)


def _add(ways: Floats, below: Floats, tie: float, j: int, places: int) -> Floats:
    """One rival more, which draws fewer than j, or exactly j."""
    lower = _times(ways, below, places)
    after = np.zeros((min(len(ways), places // j) + 1, max(lower.shape[1], ways.shape[1])))
    after[: len(lower), : lower.shape[1]] = lower
    after[1:, : ways.shape[1]] += tie * ways[: len(after) - 1]
    return after


def _times(ways: Floats, weights: Floats, places: int) -> Floats:
    """The draws that are not tied, and those of one rival with these weights: a convolution of each row."""
    used = np.flatnonzero(weights)
    if not len(used):
        return np.zeros((1, 1))
    first, last = int(used[0]), int(used[-1])
    rows, width = len(ways), ways.shape[1] + last - first
    # One convolution of all rows, with zeros between them.
    padded = np.zeros((rows, width))
    padded[:, : ways.shape[1]] = ways
    found = np.convolve(padded.ravel(), weights[first : last + 1])[: rows * width].reshape(rows, width)
    after = np.zeros((rows, min(width + first, places + 1)))
    after[:, first:] = found[:, : after.shape[1] - first]
    return _trimmed(after)


def _trimmed(ways: Floats) -> Floats:
    """Without the last rows and columns where they show nothing."""
    shown = ways >= _NEGLIGIBLE
    rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
    return ways[: rows[-1] + 1, : columns[-1] + 1] if len(rows) else np.zeros((1, 1))


def _sum(one: Floats, other: Floats) -> Floats:
    """The sum of two arrays as if both were as large as the larger."""
    total = np.zeros(np.maximum(one.shape, other.shape))
    for part in (one, other):
        total[: part.shape[0], : part.shape[1]] += part
    return total


def _filled(ways: Floats, fill: Floats, j: int, places: int) -> Floats:
    """By the number of tied rivals, the chance that the pool draws all places that the rivals leave."""
    tied, others = np.ogrid[: ways.shape[0], : ways.shape[1]]
    left = places - j * tied - others
    possible = (left >= 0) & (left < len(fill))
    chances: Floats = np.where(possible, ways * fill[np.where(possible, left, 0)], 0.0).sum(axis=1)
    return chances


@lru_cache(maxsize=4096)
def _binomial(size: int, p: float) -> Floats:
    return _chances(size, p)


def _chances(size: int, p: float) -> Floats:
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


def _check_sizes(sizes: Sequence[int], n: int) -> None:
    for size in sizes:
        if not 1 <= size <= n:
            raise ValueError(f"a subset of {size} cannot be drawn from {n} predictions")

"""Bootstrap resampling of tasks for many rows of values at once, with the random numbers of scipy.stats.bootstrap.

A resample is stored as a vector of counts (how often each task was drawn), so that the resampled sums of all rows are
one matrix product. The values are whole numbers (see ``to_units``), so that all sums are exact and the means equal
those that scipy computes by indexing, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

ROUNDED = 1e12
"""Scale of rows that their denominator does not make whole numbers: these are rounded to 12 decimals.

Sums are exact while tasks × scale ≤ 2**53, which is 9,007 tasks with this scale. With more tasks the last bit of a mean
can depend on the order of summation.
"""

_ROWS_AT_ONCE = 512
_CELLS_AT_ONCE = 1 << 17
"""Counts in a block: about a megabyte, which fits into the processor's cache."""


def to_units(values: ArrayLike, denominator: ArrayLike = 1) -> tuple[Floats, Floats]:
    """Return rows of values as whole numbers (units), and the scale of each row: value = units / scale.

    Args:
        values: shape (rows, tasks) or (tasks,), each in [-1, 1].
        denominator: scale for all rows, or one per row. If values × denominator are not whole numbers, the row is
            rounded to 12 decimals and its scale is ROUNDED.

    Returns:
        Arrays of shape (rows, tasks) and (rows,).

    Raises:
        ValueError: there is no task, a value is not finite or not in [-1, 1], or a denominator is below 1.
    """
    rows = np.atleast_2d(np.asarray(values, dtype=np.float64))
    scale = np.broadcast_to(np.asarray(denominator, dtype=np.float64), rows.shape[:1]).copy()
    if rows.ndim != 2 or not rows.shape[1]:
        raise ValueError(f"values must have the shape (rows, tasks) with at least one task, not {rows.shape}")
    if not np.all(np.abs(rows) <= 1 + 1e-9):
        raise ValueError("values must be finite and within [-1, 1]")
    if not np.all(scale >= 1):
        raise ValueError("a denominator must be at least 1")
    units = rows * scale[:, None]
    fractional = (np.abs(units - np.rint(units)) > 1e-6).any(axis=1)
    scale[fractional] = ROUNDED
    return np.rint(rows * scale[:, None]), scale


def resampled_means(units: Floats, seed: int, resamples: int) -> Iterator[tuple[slice, Floats]]:
    """Yield the means of bootstrap resamples of the tasks, for groups of rows to bound memory.

    All rows use the same resamples.

    Args:
        units: shape (rows, tasks).

    Yields:
        A slice of rows, and their resampled means, shape (rows in the slice, resamples).
    """
    for start in range(0, len(units), _ROWS_AT_ONCE):
        group = slice(start, min(start + _ROWS_AT_ONCE, len(units)))
        tasks = units.shape[1]
        means = np.empty((group.stop - group.start, resamples))
        done = 0
        # The random numbers start again, so that every group uses the same resamples.
        for counts in _count_blocks(tasks, seed, resamples):
            np.matmul(units[group], counts.T, out=means[:, done : done + len(counts)])
            done += len(counts)
        means /= tasks
        yield group, means


def unsigned_seed(seed: int) -> int:
    """Return the seed as a non-negative number for numpy; a negative one (older runs) is read as 64 unsigned bits."""
    return seed if seed >= 0 else seed % (1 << 64)


def _count_blocks(tasks: int, seed: int, resamples: int) -> Iterator[Floats]:
    """Yield the count matrix (resamples, tasks) in blocks of rows, with the random numbers that scipy uses."""
    rng = np.random.default_rng(unsigned_seed(seed))
    block = max(1, _CELLS_AT_ONCE // tasks)
    for start in range(0, resamples, block):
        height = min(block, resamples - start)
        drawn = rng.integers(0, tasks, (height, tasks))
        drawn += np.arange(height)[:, None] * tasks
        yield np.bincount(drawn.ravel(), minlength=height * tasks).reshape(height, tasks).astype(np.float64)

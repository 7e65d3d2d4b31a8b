"""Resampling tasks for many rows of values at once, on the very stream that scipy.stats.bootstrap draws from.

A resample is a vector of counts, how often each task was drawn, so that the resampled sums of any number
of rows are one matrix product. The values are whole numbers (see ``to_units``), every sum is therefore
exact, and the means equal those that scipy computes by indexing, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

ROUNDED = 1e12
"""The scale where the given denominator does not make whole numbers: 12 decimals are kept.

Sums stay exact while tasks times scale is within 2**53: on up to 9,007 tasks with this scale. Beyond, the last bit of a
mean can depend on the order of its sum.
"""

_ROWS_AT_ONCE = 512
_CELLS_AT_ONCE = 1 << 17
"""Counts in a block: about a megabyte, which stays in the processor's cache."""


def to_units(values: ArrayLike, denominator: ArrayLike = 1) -> tuple[Floats, Floats]:
    """Rows of values as whole numbers, and the scale of each row (value = units / scale).

    Args:
        values: shape (rows, tasks) or (tasks,), each |value| at most 1.
        denominator: one for all rows or one a row; a row that it does not make whole is rounded to 12 decimals.

    Returns:
        float64 arrays of shape (rows, tasks) and (rows,).

    Raises:
        ValueError: no task, a value that is not finite or over 1, or a denominator below 1.
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
    """The means of ``resamples`` draws of tasks with replacement, in groups of rows to bound memory.

    Yields:
        The rows of ``units`` and their means, shape (rows of the group, resamples), in units.
    """
    for start in range(0, len(units), _ROWS_AT_ONCE):
        group = slice(start, min(start + _ROWS_AT_ONCE, len(units)))
        tasks = units.shape[1]
        means = np.empty((group.stop - group.start, resamples))
        done = 0
        # Every group meets the same resamples: the stream starts again.
        for counts in _count_blocks(tasks, seed, resamples):
            np.matmul(units[group], counts.T, out=means[:, done : done + len(counts)])
            done += len(counts)
        means /= tasks
        yield group, means


def unsigned_seed(seed: int) -> int:
    """Return a seed that numpy takes: older runs may have a negative one, which stands for its 64 bits."""
    return seed if seed >= 0 else seed % (1 << 64)


def _count_blocks(tasks: int, seed: int, resamples: int) -> Iterator[Floats]:
    """Blocks of the count matrix (resamples, tasks) of numpy.random.default_rng(seed).integers, as scipy draws."""
    rng = np.random.default_rng(unsigned_seed(seed))
    block = max(1, _CELLS_AT_ONCE // tasks)
    for start in range(0, resamples, block):
        height = min(block, resamples - start)
        drawn = rng.integers(0, tasks, (height, tasks))
        drawn += np.arange(height)[:, None] * tasks
        yield np.bincount(drawn.ravel(), minlength=height * tasks).reshape(height, tasks).astype(np.float64)

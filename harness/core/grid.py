"""Grids, pairs and tasks as immutable, hashable values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from harness.core.errors import GridError, short_repr

MAX_SIDE = 30
MAX_ROW = 128
"""Longest row of a task whose grids all have one row (1D-ARC); these rows may be longer than MAX_SIDE."""
_ROW_RULE = f"rows of up to {MAX_ROW} cells need a task whose grids all have one row"
COLOURS = 10
Rows = list[list[int]]
"""A grid as in ARC's JSON files: a list of rows, each a list of colours."""
_VALID = bytes(range(COLOURS))
_ONLY_INT = {int}


class OversizeError(GridError):
    """A rectangular grid with more rows or columns than allowed; its colours were not checked."""


def is_long_row(height: int, width: int) -> bool:
    """Return whether a grid of this shape is one row, or one column, of MAX_SIDE + 1 to MAX_ROW cells."""
    return min(height, width) == 1 and MAX_SIDE < max(height, width) <= MAX_ROW


def is_allowed(height: int, width: int, long_rows: bool) -> bool:
    """Return whether a grid may have this shape.

    Args:
        long_rows: whether a single row or column may be longer than MAX_SIDE.
    """
    return max(height, width) <= MAX_SIDE or (long_rows and is_long_row(height, width))


@dataclass(frozen=True, slots=True)
class Grid:
    """A height × width grid of colours 0–9; ``cells`` holds one byte per cell, row by row."""

    height: int
    width: int
    cells: bytes

    @staticmethod
    def from_rows(rows: object, where: str = "grid", long_rows: bool = False) -> Grid:
        """Return the grid of a list of equally long rows of integers 0–9.

        Args:
            rows: any value, for example one parsed from JSON.
            where: what error messages call it.
            long_rows: accept a single row or column of up to MAX_ROW cells.

        Raises:
            GridError: of kind ``bad_shape`` (not a list of rows, empty, ragged, a side over 30) or ``bad_value``
                (a cell that is not an integer 0–9).
        """
        if not isinstance(rows, (list, tuple)) or not rows:
            raise GridError("bad_shape", f"{where}: expected a non-empty list of rows, got {short_repr(rows, 40)}")
        for i, row in enumerate(rows):
            if not isinstance(row, (list, tuple)) or not row:
                raise GridError(
                    "bad_shape",
                    f"{where}, row {i}: expected a non-empty list of colours, got {short_repr(row, 40)}",
                )
            if len(row) != len(rows[0]):
                raise GridError("bad_shape", f"{where}, row {i}: {len(row)} cells, but row 0 has {len(rows[0])}")
        if not is_allowed(len(rows), len(rows[0]), long_rows):
            limit = f"{MAX_SIDE}x{MAX_SIDE}"
            if len(rows) == 1:
                limit = f"1x{MAX_ROW}, the longest single row" if long_rows else f"{limit}; {_ROW_RULE}"
            raise OversizeError("bad_shape", f"{where}: {len(rows)}x{len(rows[0])} is over {limit}")
        # Check the types first: bytes() would convert True, and any object with __index__, to a number.
        if set(map(type, chain.from_iterable(rows))) == _ONLY_INT:
            try:
                cells = b"".join(map(bytes, rows))
            except ValueError:  # a value outside 0-255
                cells = b"\xff"
            if not cells.translate(None, _VALID):
                return Grid(len(rows), len(rows[0]), cells)
        i, j, value = _first_bad(rows)
        raise GridError(
            "bad_value", f"{where}, row {i}, column {j}: expected a colour 0-9, got {short_repr(value, 40)}"
        )

    @staticmethod
    def from_json(rows: object, where: str = "grid", long_rows: bool = False) -> Grid:
        """Return the grid of rows parsed from JSON: the same as ``from_rows``, but faster.

        The types of the cells are not checked: ``true`` and ``false`` would be accepted as 1 and 0.

        Raises:
            GridError: as ``from_rows`` does.
        """
        if isinstance(rows, list) and len(rows) <= MAX_SIDE:
            try:
                widths = set(map(len, rows))  # fails on numbers, which bytes() would turn into that many zeros
                cells = b"".join(map(bytes, rows)) if len(widths) == 1 and max(widths) <= MAX_SIDE else b""
            except (TypeError, ValueError):  # a row without a length, or a value outside 0-255
                cells = b""
            if cells and not cells.translate(None, _VALID):
                return Grid(len(rows), widths.pop(), cells)
        return Grid.from_rows(rows, where, long_rows)

    @staticmethod
    def from_byte_rows(rows: Sequence[bytes]) -> Grid:
        """Return the grid of equally long, non-empty rows of colours, without checking them."""
        return Grid(len(rows), len(rows[0]), b"".join(rows))

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width

    def rows(self) -> list[bytes]:
        """Return the rows, one byte per cell."""
        w = self.width
        return [self.cells[i : i + w] for i in range(0, len(self.cells), w)]

    def to_rows(self) -> Rows:
        """Return the grid as lists of integers, as in ARC's JSON files."""
        return [list(row) for row in self.rows()]

    def columns(self) -> list[bytes]:
        """Return the columns, one byte per cell."""
        return [self.cells[j :: self.width] for j in range(self.width)]


@dataclass(frozen=True, slots=True)
class Pair:
    """An input grid and its output grid; ``output`` is None for a test pair whose solution is unknown."""

    input: Grid
    output: Grid | None


@dataclass(frozen=True, slots=True)
class Task:
    """An ARC task: train pairs that demonstrate a rule, and test pairs whose outputs are to be predicted."""

    id: str
    train: tuple[Pair, ...]
    test: tuple[Pair, ...]

    def has_long_rows(self) -> bool:
        """Return whether a known grid is longer than MAX_SIDE, as single rows may be; then answers may be too."""
        grids = [grid for pair in self.train + self.test for grid in (pair.input, pair.output) if grid is not None]
        return any(grid.height > MAX_SIDE or grid.width > MAX_SIDE for grid in grids)


def _first_bad(rows: Sequence[Sequence[object]]) -> tuple[int, int, object]:
    """Return row, column and value of the first cell that is not a colour."""
    for i, row in enumerate(rows):
        for j, value in enumerate(row):
            if type(value) is not int or not 0 <= value < COLOURS:
                return i, j, value
    raise AssertionError("unreachable: called only for a grid with a bad cell")

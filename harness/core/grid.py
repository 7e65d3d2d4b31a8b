"""Grids, pairs and tasks as immutable, hashable values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from harness.core.errors import GridError, short_repr

MAX_SIDE = 30
COLOURS = 10
Rows = list[list[int]]
"""A grid as in ARC's JSON files: a list of rows, each a list of colours."""
_VALID = bytes(range(COLOURS))
_ONLY_INT = {int}


class OversizeError(GridError):
    """A rectangular grid with more than MAX_SIDE rows or columns; its colours were not checked."""


@dataclass(frozen=True, slots=True)
class Grid:
    """A height × width grid of colours 0–9; ``cells`` holds one byte per cell, row by row."""

    height: int
    width: int
    cells: bytes

    @staticmethod
    def from_rows(rows: object, where: str = "grid") -> Grid:
        """Return the grid of a list of equally long rows of integers 0–9.

        Args:
            rows: any value, for example one parsed from JSON.
            where: what error messages call it.

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
        if len(rows) > MAX_SIDE or len(rows[0]) > MAX_SIDE:
            raise OversizeError("bad_shape", f"{where}: {len(rows)}x{len(rows[0])} is over {MAX_SIDE}x{MAX_SIDE}")
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
    def from_json(rows: object, where: str = "grid") -> Grid:
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
        return Grid.from_rows(rows, where)

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


def _first_bad(rows: Sequence[Sequence[object]]) -> tuple[int, int, object]:
    """Return row, column and value of the first cell that is not a colour."""
    for i, row in enumerate(rows):
        for j, value in enumerate(row):
            if type(value) is not int or not 0 <= value < COLOURS:
                return i, j, value
    raise AssertionError("unreachable: called only for a grid with a bad cell")

"""Grids and tasks: frozen, hashable values that everything else is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from harness.core.errors import GridError, short_repr

MAX_SIDE = 30
COLOURS = 10
Rows = list[list[int]]
_VALID = bytes(range(COLOURS))
_ONLY_INT = {int}


class OversizeError(GridError):
    """A grid with a side over MAX_SIDE, otherwise well formed as far as its shape goes."""


@dataclass(frozen=True, slots=True)
class Grid:
    """A height × width grid of colours 0–9, stored row by row in ``cells`` (one byte a cell)."""

    height: int
    width: int
    cells: bytes

    @staticmethod
    def from_rows(rows: object, where: str = "grid") -> Grid:
        """Build a grid from a list of equally long rows of integers 0–9.

        Raises:
            GridError: ``bad_shape`` (empty, ragged, a side over 30) or ``bad_value`` (not an integer 0–9).
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
        # The types are looked at first: bytes() would take True for 1, and an object with __index__ for its number.
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
        """The same for rows parsed from JSON that has no ``true`` and no ``false``, without a look at each type.

        Raises:
            GridError: as ``from_rows``.
        """
        if isinstance(rows, list) and len(rows) <= MAX_SIDE:
            try:
                widths = set(map(len, rows))  # before bytes(), which would make a number into so many zeros
                cells = b"".join(map(bytes, rows)) if len(widths) == 1 and max(widths) <= MAX_SIDE else b""
            except (TypeError, ValueError):  # what has no length, or is no colour
                cells = b""
            if cells and not cells.translate(None, _VALID):
                return Grid(len(rows), widths.pop(), cells)
        return Grid.from_rows(rows, where)

    @staticmethod
    def from_byte_rows(rows: Sequence[bytes]) -> Grid:
        """Build a grid from trusted rows of bytes (no checks)."""
        return Grid(len(rows), len(rows[0]), b"".join(rows))

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width

    def rows(self) -> list[bytes]:
        """The rows, each as bytes of colours."""
        w = self.width
        return [self.cells[i : i + w] for i in range(0, len(self.cells), w)]

    def to_rows(self) -> Rows:
        """The grid as a list of lists of integers, as in ARC's JSON."""
        return [list(row) for row in self.rows()]

    def columns(self) -> list[bytes]:
        """The columns, each as bytes of colours."""
        return [self.cells[j :: self.width] for j in range(self.width)]


@dataclass(frozen=True, slots=True)
class Pair:
    """One example; ``output`` is None where the answer is not known."""

    input: Grid
    output: Grid | None


@dataclass(frozen=True, slots=True)
class Task:
    """Train pairs that show a rule and test pairs to answer, named by ``id``."""

    id: str
    train: tuple[Pair, ...]
    test: tuple[Pair, ...]


def _first_bad(rows: Sequence[Sequence[object]]) -> tuple[int, int, object]:
    for i, row in enumerate(rows):
        for j, value in enumerate(row):
            if type(value) is not int or not 0 <= value < COLOURS:
                return i, j, value
    raise AssertionError("unreachable: called only for a grid with a bad cell")

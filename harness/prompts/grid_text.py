"""What a grid encoder is, and the strict reading of grids from text, in which each way to fail has its name."""

from __future__ import annotations

import re
from typing import Protocol

from harness.core.errors import GridError
from harness.core.grid import MAX_SIDE, Grid

DIGITS = "0123456789"
_CLOSE = re.compile(r"\n```[ \t]*$", re.MULTILINE)


class GridWriter(Protocol):
    """Whatever writes a grid as text."""

    def encode(self, grid: Grid) -> str:
        """The grid as text."""
        ...


class GridEncoder(GridWriter, Protocol):
    """Turns grids into text and back; ``decode(encode(g)) == g`` for every valid grid.

    The text of a grid is always ``head + "\\n".join(lines) + tail``, so that its parts can be cached.
    """

    def decode(self, text: str) -> Grid:
        """The grid that a text holds.

        Raises:
            GridError: ``unparsed``, ``bad_shape`` or ``bad_value``.
        """
        ...

    def head(self, height: int, width: int) -> str:
        """What stands before the first row, ending in a line break where it is not empty."""
        ...

    def line(self, number: int, row: bytes) -> str:
        """Row ``number`` (from 1) without its line break."""
        ...

    def lines(self, grid: Grid) -> list[str]:
        """All rows without their line breaks."""
        ...

    def tail(self, height: int, width: int) -> str:
        """What stands after the last row, beginning with a line break where it is not empty."""
        ...


class LineEncoder:
    """What all encoders share: no head, no tail, and their sum."""

    def encode(self: GridEncoder, grid: Grid) -> str:
        return self.head(*grid.shape) + "\n".join(self.lines(grid)) + self.tail(*grid.shape)

    def lines(self: GridEncoder, grid: Grid) -> list[str]:
        return [self.line(i, row) for i, row in enumerate(grid.rows(), 1)]

    def head(self, height: int, width: int) -> str:
        return ""

    def tail(self, height: int, width: int) -> str:
        return ""


def split_rows(text: str) -> list[str]:
    """The lines of a text, empty ones before and after it left out."""
    return text.strip("\n").split("\n")


def find_block(text: str, opening: str) -> tuple[re.Match[str], str]:
    """The match of a block's opening line and the text up to its closing fence.

    Raises:
        GridError: ``unparsed``, no such block or not closed.
    """
    head = re.search(rf"^{opening}$", text, re.MULTILINE)
    if head is None:
        raise GridError("unparsed", "no grid block in the answer")
    close = _CLOSE.search(text, head.end())
    if close is None:
        raise GridError("unparsed", "the grid block is not closed")
    return head, text[head.end() + 1 : close.start()]


def parse_rows(rows: list[list[str]]) -> Grid:
    """Cells as text to a grid; only the ASCII digits count.

    Raises:
        GridError: ``unparsed`` (no digit at all), ``bad_shape`` or ``bad_value``.
    """
    if not any(cell in DIGITS for row in rows for cell in row if cell):
        raise GridError("unparsed", "no grid in the answer")
    for i, row in enumerate(rows):
        if len(row) != len(rows[0]) or row == [""] or not row:
            raise GridError("bad_shape", f"row {i + 1} has {len(row)} cells, but row 1 has {len(rows[0])}")
        for cell in row:
            if len(cell) != 1 or cell not in DIGITS:
                raise GridError("bad_value", f"row {i + 1}: {cell!r} is not a digit 0-9")
    if len(rows) > MAX_SIDE or len(rows[0]) > MAX_SIDE:
        raise GridError("bad_shape", f"{len(rows)}x{len(rows[0])} is over {MAX_SIDE}x{MAX_SIDE}")
    return Grid(len(rows), len(rows[0]), bytes(int(cell) for row in rows for cell in row))

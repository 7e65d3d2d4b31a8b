"""The interface of grid encoders, and strict parsing of grids from text with a named error for each failure."""

from __future__ import annotations

import re
from typing import Protocol

from harness.core.errors import GridError
from harness.core.grid import MAX_SIDE, Grid, is_allowed

DIGITS = "0123456789"
_CLOSE = re.compile(r"\n```[ \t]*$", re.MULTILINE)


class GridWriter(Protocol):
    """Writes a grid as text."""

    def encode(self, grid: Grid) -> str:
        """Return the text of a grid."""
        ...


class GridEncoder(GridWriter, Protocol):
    """Converts grids to text and back: ``decode(encode(g)) == g`` for every valid grid.

    The text of a grid is always ``head + "\\n".join(lines) + tail``, so that ids of its parts can be cached.
    """

    def decode(self, text: str) -> Grid:
        """Return the grid in a text, which may have other text around the grid if the encoder writes a block.

        Raises:
            GridError: ``unparsed``, ``bad_shape`` or ``bad_value``.
        """
        ...

    def head(self, height: int, width: int) -> str:
        """Return the text before the first row. It ends in a line break unless it is empty."""
        ...

    def line(self, number: int, row: bytes) -> str:
        """Return the text of a row without its line break; ``number`` counts rows from 1."""
        ...

    def lines(self, grid: Grid) -> list[str]:
        """Return the text of each row without its line break."""
        ...

    def tail(self, height: int, width: int) -> str:
        """Return the text after the last row. It begins with a line break unless it is empty."""
        ...


class LineEncoder:
    """Base of all encoders: ``encode`` from the parts, with an empty head and tail."""

    def encode(self: GridEncoder, grid: Grid) -> str:
        return self.head(*grid.shape) + "\n".join(self.lines(grid)) + self.tail(*grid.shape)

    def lines(self: GridEncoder, grid: Grid) -> list[str]:
        return [self.line(i, row) for i, row in enumerate(grid.rows(), 1)]

    def head(self, height: int, width: int) -> str:
        return ""

    def tail(self, height: int, width: int) -> str:
        return ""


def split_rows(text: str) -> list[str]:
    """Return the lines of a text without empty lines at its start and end."""
    return text.strip("\n").split("\n")


def find_block(text: str, opening: str) -> tuple[re.Match[str], str]:
    """Find a fenced block and return the match of its opening line and the text inside it.

    Args:
        opening: pattern of the whole opening line.

    Raises:
        GridError: ``unparsed``: there is no such block, or it is not closed.
    """
    head = re.search(rf"^{opening}$", text, re.MULTILINE)
    if head is None:
        raise GridError("unparsed", "no grid block in the answer")
    close = _CLOSE.search(text, head.end())
    if close is None:
        raise GridError("unparsed", "the grid block is not closed")
    return head, text[head.end() + 1 : close.start()]


def parse_rows(rows: list[list[str]]) -> Grid:
    """Return the grid of these cells. Each must be one ASCII digit.

    A single row or column may be longer than 30, as in 1D-ARC; whether the task allows it is for the caller to check.

    Raises:
        GridError: ``unparsed`` (no digit at all), ``bad_shape`` (ragged, or a side over 30) or ``bad_value``.
    """
    if not any(cell in DIGITS for row in rows for cell in row if cell):
        raise GridError("unparsed", "no grid in the answer")
    for i, row in enumerate(rows):
        if len(row) != len(rows[0]) or row == [""] or not row:
            raise GridError("bad_shape", f"row {i + 1} has {len(row)} cells, but row 1 has {len(rows[0])}")
        for cell in row:
            if len(cell) != 1 or cell not in DIGITS:
                raise GridError("bad_value", f"row {i + 1}: {cell!r} is not a digit 0-9")
    if not is_allowed(len(rows), len(rows[0]), long_rows=True):
        raise GridError("bad_shape", f"{len(rows)}x{len(rows[0])} is over {MAX_SIDE}x{MAX_SIDE}")
    return Grid(len(rows), len(rows[0]), bytes(int(cell) for row in rows for cell in row))

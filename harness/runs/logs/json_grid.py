"""Grids of parsed JSON, read faster than ``Grid.from_rows`` and as strictly."""

from __future__ import annotations

import orjson

from harness.core.grid import COLOURS, MAX_SIDE, Grid

_NO_DIGIT = 255
_DIGITS = bytes(byte - ord("0") if chr(byte) in "0123456789" else _NO_DIGIT for byte in range(256))
_COLOURS = bytes(range(COLOURS))
_ONLY_LISTS = {list}


def read_json_grid(rows: object, where: str) -> Grid:
    """Return the grid of a value that was parsed from JSON.

    The value is written as JSON again, whose digits are the cells: with as many digits as cells, no other character
    than digits, commas and brackets, and one pair of brackets more than rows, all of which are lists, every cell is one
    digit. Anything else is left to ``Grid.from_rows``. A row of up to MAX_ROW cells is a grid, whether or not the task
    has such rows.

    Raises:
        GridError: as ``Grid.from_rows``.
    """
    if type(rows) is list and 0 < len(rows) <= MAX_SIDE and type(rows[0]) is list and 0 < len(rows[0]) <= MAX_SIDE:
        try:
            text = orjson.dumps(rows)
        except TypeError:  # values that JSON does not have
            return Grid.from_rows(rows, where, long_rows=True)
        cells = text.translate(_DIGITS, b"[],")
        width = len(rows[0])
        if (
            len(cells) == len(rows) * width
            and text.count(b"[") == len(rows) + 1
            and not cells.translate(None, _COLOURS)
            and set(map(type, rows)) == _ONLY_LISTS
            and set(map(len, rows)) == {width}
        ):
            return Grid(len(rows), width, cells)
    return Grid.from_rows(rows, where, long_rows=True)

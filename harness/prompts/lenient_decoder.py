"""Decodes answers as leniently as the original arc24 scripts did.

Fences, declared shapes and row numbers are skipped without a check: a block need not be closed, and row numbers may be
wrong. The result must still be a grid: rectangular, at most 30x30 or one long row, colours 0-9.
"""

from __future__ import annotations

from harness.core.errors import GridError
from harness.core.grid import Grid
from harness.prompts.grid_encoder import (
    TO_DIGITS,
    GridCodeBlockEncoder,
    GridShapeEncoder,
    GridWithSeparationEncoder,
    RepeatNumberEncoder,
    ReplaceNumberEncoder,
    RowNumberEncoder,
)
from harness.prompts.grid_text import GridEncoder

_OPENING = "```grid"


def decode_lenient(text: str, encoder: GridEncoder) -> Grid:
    """Return the grid that the original scripts would have read from an answer.

    Raises:
        GridError: they would have read none (``unparsed``), or not a rectangle of at most 30x30 (``bad_shape``).
    """
    rows = _split_cells(text, encoder)
    try:
        values = [[int(cell) for cell in row] for row in rows]
    except ValueError as error:
        raise GridError("unparsed", f"not a digit: {error}") from None
    if not values:
        raise GridError("unparsed", "no grid in the answer")
    return Grid.from_rows(values, "answer", long_rows=True)


def _split_cells(text: str, encoder: GridEncoder) -> list[list[str]]:
    """Return the text of each cell, after undoing the encoder's wrappers from the outermost to the innermost."""
    if isinstance(encoder, GridCodeBlockEncoder) and _OPENING not in text:
        text = _OPENING + text  # the original prompts ended with the opening, so answers began after it
    if isinstance(encoder, GridShapeEncoder):
        return _split_cells(_after_shape(text), encoder.base)
    if isinstance(encoder, GridCodeBlockEncoder):
        _, opening, body = text.partition(_OPENING + "\n")
        if not opening:
            raise GridError("unparsed", "no grid block in the answer")
        return _split_cells(body.partition("\n```")[0], encoder.base)
    if isinstance(encoder, RowNumberEncoder):
        lines = [line.partition(" ") for line in text.splitlines()]
        if not all(space for _, space, _ in lines):
            raise GridError("unparsed", "a row without a number before it")
        return _split_cells("\n".join(rest for _, _, rest in lines), encoder.base)
    if isinstance(encoder, ReplaceNumberEncoder):
        return _split_cells(text.translate(TO_DIGITS), encoder.base)
    rows = text.strip().splitlines()
    if isinstance(encoder, GridWithSeparationEncoder):
        return [row.split(encoder.separator) for row in rows]
    step = encoder.n if isinstance(encoder, RepeatNumberEncoder) else 1
    return [list(row[::step]) for row in rows]


def _after_shape(text: str) -> str:
    """Return the lines between the line that declares a shape and the next fence or the end."""
    lines = text.splitlines()
    first = next((i for i, line in enumerate(lines) if line.startswith(_OPENING + " shape:")), len(lines))
    body = lines[first + 1 :]
    last = next((i for i, line in enumerate(body) if line.startswith("```")), len(body))
    return "\n".join(body[:last])

"""Decoding as the original scripts did: what they would have read as a grid, where strict decoding names a failure.

Fences, shapes and row numbers are skipped, not checked: a block need not be closed, and wrong row numbers are passed
over. What comes out must still be a grid: rectangular, at most 30x30, colours 0-9.
"""

from __future__ import annotations

from harness.core.errors import GridError
from harness.core.grid import Grid
from harness.prompts.grid_encoder import (
    REPLACEMENTS,
    GridCodeBlockEncoder,
    GridEncoder,
    GridShapeEncoder,
    GridWithSeparationEncoder,
    RepeatNumberEncoder,
    ReplaceNumberEncoder,
    RowNumberEncoder,
)

_TO_DIGITS = str.maketrans(REPLACEMENTS, "0123456789")
_OPENING = "```grid"


def decode_lenient(text: str, encoder: GridEncoder) -> Grid:
    """The grid that the original scripts would have found in an answer.

    Raises:
        GridError: they would have found none (``unparsed``), or no rectangle of at most 30x30 (``bad_shape``).
    """
    rows = _cells(text, encoder)
    try:
        values = [[int(cell) for cell in row] for row in rows]
    except ValueError as error:
        raise GridError("unparsed", f"not a digit: {error}") from None
    if not values:
        raise GridError("unparsed", "no grid in the answer")
    return Grid.from_rows(values, "answer")


def _cells(text: str, encoder: GridEncoder) -> list[list[str]]:
    if isinstance(encoder, GridCodeBlockEncoder) and _OPENING not in text:
        text = _OPENING + text  # their prompts ended with it, so that answers went on from there
    if isinstance(encoder, GridShapeEncoder):
        return _cells(_after_shape(text), encoder.base)
    if isinstance(encoder, GridCodeBlockEncoder):
        _, opening, body = text.partition(_OPENING + "\n")
        if not opening:
            raise GridError("unparsed", "no grid block in the answer")
        return _cells(body.partition("\n```")[0], encoder.base)
    if isinstance(encoder, RowNumberEncoder):
        lines = [line.partition(" ") for line in text.splitlines()]
        if not all(space for _, space, _ in lines):
            raise GridError("unparsed", "a row without a number before it")
        return _cells("\n".join(rest for _, _, rest in lines), encoder.base)
    if isinstance(encoder, ReplaceNumberEncoder):
        return _cells(text.translate(_TO_DIGITS), encoder.base)
    lines_ = text.strip().splitlines()
    if isinstance(encoder, GridWithSeparationEncoder):
        return [line.split(encoder.separator) for line in lines_]
    step = encoder.n if isinstance(encoder, RepeatNumberEncoder) else 1
    return [list(line[::step]) for line in lines_]


def _after_shape(text: str) -> str:
    lines = text.splitlines()
    first = next((i for i, line in enumerate(lines) if line.startswith(_OPENING + " shape:")), len(lines))
    body = lines[first + 1 :]
    last = next((i for i, line in enumerate(body) if line.startswith("```")), len(body))
    return "\n".join(body[:last])

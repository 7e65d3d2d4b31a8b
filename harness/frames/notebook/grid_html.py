"""Grids and tasks as HTML with SVG pictures, for notebooks; every text is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import groupby

from harness.core.grid import Grid, Task
from harness.inspection.terminal_picture import PALETTE

_CELL, _SMALLEST_CELL = 10, 4
"""Side of a cell in pixels, and the least side in rows of 1D-ARC, which may be longer than _LARGEST."""
_LARGEST = 160
"""Side of the square, in pixels, that a grid is fitted into."""
_ROW = '<div style="display:flex;flex-wrap:wrap;gap:14px;align-items:flex-end;margin:6px 0">'
_UNKNOWN = '<span style="font-size:24px;padding:8px">?</span>'


def grid_svg(grid: Grid) -> str:
    """Return a grid as an SVG picture in ARC's usual colours, one path per colour."""
    paths: dict[int, list[str]] = {}
    for y, row in enumerate(grid.rows()):
        x = 0
        for colour, cells in groupby(row):
            width = len(list(cells))
            paths.setdefault(colour, []).append(f"M{x} {y}h{width}v1h-{width}z")
            x += width
    height, width = grid.shape
    cell = max(_SMALLEST_CELL, min(_CELL, _LARGEST / max(grid.shape)))
    drawn = "".join(f'<path fill="{_hex(colour)}" d="{"".join(d)}"/>' for colour, d in sorted(paths.items()))
    lines = "".join(f"M{x} 0v{height}" for x in range(width + 1))
    lines += "".join(f"M0 {y}h{width}" for y in range(height + 1))
    return (
        f'<svg width="{cell * width:.0f}" height="{cell * height:.0f}" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{height} x {width} grid" shape-rendering="crispEdges">{drawn}'
        f'<path fill="none" stroke="#555" stroke-width="0.06" d="{lines}"/></svg>'
    )


def captioned(caption: str, grids: Sequence[Grid | None], exact: bool | None = None) -> str:
    """Return grids in a row under a caption, with an arrow between two; None is a grid that is not known.

    Args:
        exact: whether a prediction is exact, which gives the caption its colour; None if that is not known.
    """
    colour = {True: "#117733", False: "#aa3311", None: "inherit"}[exact]
    pictures = " → ".join(_UNKNOWN if grid is None else grid_svg(grid) for grid in grids)
    return (
        f'<div><div style="font-size:12px;color:{colour}">{escape(caption)}</div>'
        f'<div style="display:flex;gap:6px;align-items:center">{pictures}</div></div>'
    )


def task_html(task: Task) -> str:
    """Return the pairs of a task, train pairs first."""
    parts = [f"<div><b>{escape(task.id)}</b>"]
    for name, pairs in (("train", task.train), ("test", task.test)):
        drawn = "".join(captioned(f"{name} {i}", [pair.input, pair.output]) for i, pair in enumerate(pairs, 1))
        parts.append(row_html(drawn))
    return "".join(parts) + "</div>"


def row_html(content: str) -> str:
    """Return drawn parts side by side."""
    return f"{_ROW}{content}</div>"


def _hex(colour: int) -> str:
    return "#{:02x}{:02x}{:02x}".format(*PALETTE[colour])

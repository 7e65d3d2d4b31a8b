"""Draw the picture of one task of the gallery from its layout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.core.grid import COLOURS, Grid
from harness.inspection.terminal_picture import PALETTE
from reports.gallery.layout import BOX, GAP, TITLE, Layout, Placed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_FONT_SIZE = 7.5
_LINE_COLOUR = "#555555"
_POINTS_PER_INCH = 72.0

Segment = tuple[tuple[float, float], tuple[float, float]]
"""Two ends (x, y)."""


def task_picture(layout: Layout) -> Figure:
    """Draw a layout into one axes whose unit is an inch, with y growing downwards."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(layout.width, layout.height))
    panel = figure.add_axes((0, 0, 1, 1))
    for y in layout.rules:
        panel.plot([0, layout.width], [y, y], color="0.8", linewidth=0.8)
    for placed in layout.tiles:
        _draw_tile(panel, placed)
    panel.set(xlim=(0, layout.width), ylim=(layout.height, 0))
    panel.set_axis_off()
    return figure


def _draw_tile(panel: Axes, placed: Placed) -> None:
    tile, x, y = placed.tile, placed.x, placed.y
    if tile.heading:
        panel.text(x, y, tile.heading, fontsize=_FONT_SIZE, fontweight="bold", va="top")
        y += TITLE
    panel.text(x, y, tile.caption, fontsize=_FONT_SIZE, va="top")
    if tile.grid is None:
        return
    y += TITLE
    _draw_grid(panel, tile.grid, x, y, tile.cell)
    if tile.truth is not None:
        _mark_differences(panel, tile.grid, tile.truth, x, y, tile.cell)
    if tile.arrow:
        middle = y + tile.cell * tile.grid.height / 2
        panel.text(x + BOX + GAP / 2, middle, "→", fontsize=9, ha="center", va="center")


def _draw_grid(panel: Axes, grid: Grid, x: float, y: float, cell: float) -> None:
    """Draw cells in ARC's colours with thin lines between them, all lines in one collection for speed."""
    from matplotlib.collections import LineCollection
    from matplotlib.colors import ListedColormap

    right, bottom = x + cell * grid.width, y + cell * grid.height
    panel.imshow(
        grid.to_rows(), cmap=ListedColormap([tuple(part / 255 for part in colour) for colour in PALETTE]),
        vmin=-0.5, vmax=COLOURS - 0.5, extent=(x, right, bottom, y), interpolation="nearest", aspect="auto",
    )  # fmt: skip
    lines = [((x, y + i * cell), (right, y + i * cell)) for i in range(1, grid.height)]
    lines += [((x + j * cell, y), (x + j * cell, bottom)) for j in range(1, grid.width)]
    panel.add_collection(LineCollection(lines, colors=_LINE_COLOUR, linewidths=min(0.6, 8 / max(grid.shape))))
    _draw_frame(panel, grid, x, y, cell, edgecolor=_LINE_COLOUR, linewidth=0.8)


def _draw_frame(panel: Axes, grid: Grid, x: float, y: float, cell: float, **style: Any) -> None:
    from matplotlib.patches import Rectangle

    panel.add_patch(Rectangle((x, y), cell * grid.width, cell * grid.height, fill=False, zorder=3, **style))


def _mark_differences(panel: Axes, grid: Grid, truth: Grid, x: float, y: float, cell: float) -> None:
    """Outline the cells that differ from the exact grid.

    An exact grid gets a heavy frame, a grid of another shape a dashed one.
    """
    from matplotlib.collections import LineCollection

    if grid.shape != truth.shape or grid == truth:
        style = "-" if grid == truth else (0, (3, 2))
        width = min(2.0, _POINTS_PER_INCH * cell * 0.2)
        _draw_frame(panel, grid, x, y, cell, edgecolor="black", linewidth=width, linestyle=style)
        return
    edges = [
        ((x + a * cell, y + b * cell), (x + c * cell, y + d * cell)) for (a, b), (c, d) in difference_edges(grid, truth)
    ]
    # A white line on a black one is visible on every colour; both are thinner if cells are small.
    width = min(1.6, max(0.7, _POINTS_PER_INCH * cell * 0.12))
    for colour, line in (("black", 2.6 * width), ("white", width)):
        panel.add_collection(LineCollection(edges, colors=colour, linewidths=line, capstyle="projecting", zorder=4))


def difference_edges(grid: Grid, truth: Grid) -> Sequence[Segment]:
    """Return the outline of the cells in which two grids of the same shape differ.

    Returns:
        Segments between corners of cells, in units of a cell: (column, row).
    """
    height, width = grid.shape
    differs = [a != b for a, b in zip(grid.cells, truth.cells, strict=True)]

    def differs_at(i: int, j: int) -> bool:
        return 0 <= i < height and 0 <= j < width and differs[i * width + j]

    edges: list[Segment] = []
    for i in range(height + 1):
        for j in range(width + 1):
            if j < width and differs_at(i, j) != differs_at(i - 1, j):
                edges.append(((j, i), (j + 1, i)))
            if i < height and differs_at(i, j) != differs_at(i, j - 1):
                edges.append(((j, i), (j, i + 1)))
    return edges

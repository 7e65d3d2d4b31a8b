"""Compute the positions of all grids and captions in the picture of one task. All lengths are in inches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.core.grid import Grid, Task
from reports.gallery.votes import TopByOutput, TopGrids

COLUMNS = 8
BOX = 1.5
"""Side of the square that a grid is fitted into."""
GAP = 0.14
TITLE = 0.17
"""Height of one line of text."""
_LARGEST_CELL = 0.26
_LETTER = 0.066
"""Mean width of a bold letter."""


@dataclass(frozen=True)
class Tile:
    """One grid of the picture with its caption above it."""

    column: int
    """From 0 to COLUMNS - 1."""
    grid: Grid | None
    caption: str
    truth: Grid | None = None
    """The exact grid, if this one is a prediction. Cells that differ from it are marked."""
    heading: str = ""
    """Text above the caption, which may extend over the next columns."""
    arrow: bool = False
    """Whether an arrow points from this grid to the next."""

    @property
    def cell(self) -> float:
        """Return the side of one cell of the grid."""
        return 0.0 if self.grid is None else min(BOX / max(self.grid.shape), _LARGEST_CELL)


@dataclass(frozen=True)
class Placed:
    """A tile and the position of its text. The origin is the top left corner of the picture; y grows downwards."""

    tile: Tile
    x: float
    y: float


@dataclass(frozen=True)
class Layout:
    """The picture of a task: its size, its tiles, and the y of the horizontal lines above the tests."""

    width: float
    height: float
    tiles: tuple[Placed, ...]
    rules: tuple[float, ...]


def lay_out_task(task: Task, tops: TopByOutput) -> Layout:
    """Lay out the train pairs in rows, then for each test its input, the exact output and each model's top grids.

    Args:
        tops: the votes on this task's test outputs.
    """
    placed, rules = [], []
    y = GAP / 2
    for row in [*_example_rows(task), *_test_rows(task, tops)]:
        if row[0].heading and row[0].column == 0:
            rules.append(y - GAP / 3)
        placed += [Placed(tile, GAP + tile.column * (BOX + GAP), y) for tile in row]
        y += _row_height(row)
    return Layout(COLUMNS * (BOX + GAP) + GAP, y + GAP / 2, tuple(placed), tuple(rules))


def _example_rows(task: Task) -> list[list[Tile]]:
    tiles = []
    for k, pair in enumerate(task.train):
        column = 2 * k % COLUMNS
        tiles.append(Tile(column, pair.input, f"example {k + 1}: {_size(pair.input)}", arrow=True))
        tiles.append(Tile(column + 1, pair.output, _size(pair.output)))
    return [tiles[i : i + COLUMNS] for i in range(0, len(tiles), COLUMNS)]


def _test_rows(task: Task, tops: TopByOutput) -> list[list[Tile]]:
    rows = []
    for index, pair in enumerate(task.test):
        name = "test" if len(task.test) == 1 else f"test {index + 1}"
        row = [
            Tile(0, pair.input, f"{name}: {_size(pair.input)}", heading=" "),
            Tile(1, pair.output, f"truth: {_size(pair.output)}", heading=" "),
        ]
        column = 2
        for vote in tops[task.id, index]:
            width = max(1, len(vote.top))
            if column + width > COLUMNS:
                rows.append(row)
                row, column = [], 2
            row += _top_tiles(vote, pair.output, column)
            column += width
        rows.append(row)
    return rows


def _top_tiles(vote: TopGrids, truth: Grid | None, column: int) -> list[Tile]:
    """Return one tile per top grid of a model, under the model's name."""
    if not vote.top:
        return [Tile(column, None, f"no grid in {vote.n} predictions", truth, _shortened(vote.model, 1))]
    note = ""
    if vote.exact_rank is not None and vote.exact_rank > len(vote.top):
        note = f" (exact: place {vote.exact_rank}, {vote.exact_votes} of {vote.n})"
    heading = _shortened(vote.model, len(vote.top), len(note)) + note
    captions = [f"{group.count} of {vote.n}{_mark(group.grid, truth)}" for group in vote.top]
    return [
        Tile(column + i, group.grid, caption, truth, " " if i else heading)
        for i, (group, caption) in enumerate(zip(vote.top, captions, strict=True))
    ]


def _mark(grid: Grid, truth: Grid | None) -> str:
    """Return ✓ for an exact grid, else ✗ with its shape or its number of wrong cells."""
    if truth is None:
        return ""
    if grid == truth:
        return " ✓"
    if grid.shape != truth.shape:
        return f" ✗ {_size(grid)}"
    wrong = sum(a != b for a, b in zip(grid.cells, truth.cells, strict=True))
    return f" ✗ {wrong} cell{'s' if wrong > 1 else ''}"


def _size(grid: Grid | None) -> str:
    return "?" if grid is None else f"{grid.height}×{grid.width}"


def _row_height(row: Sequence[Tile]) -> float:
    grids = [tile.cell * tile.grid.height for tile in row if tile.grid is not None]
    lines = 2 if any(tile.heading for tile in row) else 1
    return max(grids, default=0.0) + lines * TITLE + GAP


def _shortened(text: str, tiles: int, reserved: int = 0) -> str:
    """Return a text, without its middle if it and ``reserved`` more characters are wider than this many tiles."""
    room = max(8, int(tiles * (BOX + GAP) / _LETTER) - reserved)
    return text if len(text) <= room else f"{text[: room // 2]}…{text[-(room - room // 2 - 1) :]}"

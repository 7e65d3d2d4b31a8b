"""Where everything stands in the picture of one task: examples, tests, truths, and the top grids of every vote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.core.grid import Grid, Task
from reports.gallery.votes import TopByOutput, TopGrids

COLUMNS = 8
BOX = 1.5
"""Side of the place of one grid, in inches, as all that follows."""
GAP = 0.14
TITLE = 0.17
"""Height of one line of text."""
_LARGEST_CELL = 0.26
_LETTER = 0.066
"""Width of a bold letter."""


@dataclass(frozen=True)
class Tile:
    """One grid of the picture: ``column`` it stands in, text above it, and what it is compared with."""

    column: int
    grid: Grid | None
    caption: str
    truth: Grid | None = None
    """The exact grid, where this one is a prediction."""
    group: str = ""
    """A heading above the caption, which may reach over the next columns."""
    arrow: bool = False
    """Whether an arrow leads from this grid to the next."""

    @property
    def cell(self) -> float:
        """The side of its grid's cells."""
        return 0.0 if self.grid is None else min(BOX / max(self.grid.shape), _LARGEST_CELL)


@dataclass(frozen=True)
class Placed:
    """A tile whose text begins at (x, y), from the top left corner of the picture, y downwards."""

    tile: Tile
    x: float
    y: float


@dataclass(frozen=True)
class Layout:
    """A whole picture: its size, its tiles, and the heights of the rules above the tests."""

    width: float
    height: float
    tiles: tuple[Placed, ...]
    rules: tuple[float, ...]


def lay_out_task(task: Task, tops: TopByOutput) -> Layout:
    """Rows of examples, then for each test output the input, the truth and each model's top grids."""
    placed, rules = [], []
    y = GAP / 2
    for row in [*_example_rows(task), *_test_rows(task, tops)]:
        if row[0].group and row[0].column == 0:
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
            Tile(0, pair.input, f"{name}: {_size(pair.input)}", group=" "),
            Tile(1, pair.output, f"truth: {_size(pair.output)}", group=" "),
        ]
        column = 2
        for own in tops[task.id, index]:
            width = max(1, len(own.top))
            if column + width > COLUMNS:
                rows.append(row)
                row, column = [], 2
            row += _top_tiles(own, pair.output, column)
            column += width
        rows.append(row)
    return rows


def _top_tiles(own: TopGrids, truth: Grid | None, column: int) -> list[Tile]:
    if not own.top:
        return [Tile(column, None, f"no grid in {own.n} predictions", truth, _shortened(own.model, 1))]
    note = ""
    if own.exact_place is not None and own.exact_place > len(own.top):
        note = f" (exact: place {own.exact_place}, {own.exact_votes} of {own.n})"
    heading = _shortened(own.model, len(own.top), len(note)) + note
    captions = [f"{group.count} of {own.n}{_judged(group.grid, truth)}" for group in own.top]
    return [
        Tile(column + i, group.grid, caption, truth, " " if i else heading)
        for i, (group, caption) in enumerate(zip(own.top, captions, strict=True))
    ]


def _judged(grid: Grid, truth: Grid | None) -> str:
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
    lines = 2 if any(tile.group for tile in row) else 1
    return max(grids, default=0.0) + lines * TITLE + GAP


def _shortened(text: str, tiles: int, taken: int = 0) -> str:
    """A text cut in its middle to what stands over so many tiles beside ``taken`` other letters."""
    room = max(8, int(tiles * (BOX + GAP) / _LETTER) - taken)
    return text if len(text) <= room else f"{text[: room // 2]}…{text[-(room - room // 2 - 1) :]}"

"""Shows grids and tasks on a terminal, in colour or as digits."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from harness.core.grid import Grid, Pair, Task

PALETTE = (
    (0, 0, 0),
    (0, 116, 217),
    (255, 65, 54),
    (46, 204, 64),
    (255, 220, 0),
    (170, 170, 170),
    (240, 18, 190),
    (255, 133, 27),
    (127, 219, 255),
    (135, 12, 37),
)
"""ARC's usual colours 0-9 as (red, green, blue)."""
_RESET = "\x1b[0m"
_ARROW = " → "


def grid_lines(grid: Grid, *, colour: bool) -> list[str]:
    """Return the lines of a grid, two columns per cell: colour blocks (24-bit ANSI) or digits."""
    return [_coloured(row) if colour else "".join(f"{c} " for c in row) for row in grid.rows()]


def _coloured(row: bytes) -> str:
    """Return a row as colour blocks, with one escape sequence per run of equal cells."""
    runs = ((PALETTE[c], len(list(cells))) for c, cells in groupby(row))
    return "".join(f"\x1b[48;2;{r};{g};{b}m{'  ' * n}" for (r, g, b), n in runs) + _RESET


def task_lines(task: Task, *, colour: bool, width: int = 80) -> Iterator[str]:
    """Yield the lines of a task: each output beside its input if both fit in ``width`` columns, else below it."""
    yield f"task {task.id}: {len(task.train)} train, {len(task.test)} test"
    for part, pairs in (("train", task.train), ("test", task.test)):
        for number, pair in enumerate(pairs, 1):
            yield ""
            yield from _pair_lines(f"{part} {number}", pair, colour, width)


def _pair_lines(title: str, pair: Pair, colour: bool, width: int) -> Iterator[str]:
    source, target = pair.input, pair.output
    shape = "?" if target is None else f"{target.height}x{target.width}"
    yield f"{title}: {source.height}x{source.width}{_ARROW}{shape}"
    left = grid_lines(source, colour=colour)
    right = ["?"] if target is None else grid_lines(target, colour=colour)
    columns = 2 * source.width
    if columns + len(_ARROW) + (2 * target.width if target is not None else 1) > width:
        yield from left
        yield _ARROW.strip()
        yield from right
        return
    for i in range(max(len(left), len(right))):
        between = _ARROW if i == 0 else " " * len(_ARROW)
        yield ((left[i] if i < len(left) else " " * columns) + between + (right[i] if i < len(right) else "")).rstrip(
            " "
        )

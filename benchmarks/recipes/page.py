"""The tables of the acceptance grid, and its missed bounds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from benchmarks.common.findings import Finding
from benchmarks.recipes.grid import RATIOS, Cell
from benchmarks.recipes.methods import METHODS
from harness.results.table_format import markdown_table

LOWEST, HIGHEST_SMALL, HIGHEST = 93.5, 98.0, 96.5
"""Accepted coverage (%): at least, at most where training is under a tenth of the variance, at most elsewhere."""
CONSERVATIVE = 95.0
"""Accepted coverage with two training runs: at least."""
CONTROL = "tasks only"


def findings(cells: Sequence[Cell]) -> list[Finding]:
    """Return how far the worst coverage lies below 95 %, beside that of the control."""
    result = []
    for design in _designs(cells):
        ours, control = (
            max(95 - _lowest([c for c in cells if c.design == design], name), 0) for name in ("harness", CONTROL)
        )
        result.append(Finding(f"under 95 % at most, training runs: {design}", "points", (ours,), CONTROL, (control,)))
    return result


def missed(cells: Iterable[Cell]) -> list[str]:
    """Return in words which cells are out of bounds, and whether the control is not."""
    cells, goals = list(cells), []
    for cell in cells:
        low, high = (CONSERVATIVE, 100.0) if min(cell.runs) == 2 else (LOWEST, _bound(cell))
        if not low <= cell.covered["harness"] <= high:
            goals.append(f"{_where(cell)}: coverage {cell.covered['harness']:.1f} %, wanted {low:.1f} to {high:.1f}")
    for design in _designs(cells):
        if _lowest([c for c in cells if c.design == design], CONTROL) >= LOWEST:
            goals.append(f"the control covers with {design} training runs, so that the grid cannot fail")
    return goals


def page(cells: Sequence[Cell]) -> str:
    """Return the tables as markdown."""
    return "\n\n".join([_HEAD, _by_method(cells), _BY_CELL, _by_cell(cells), _WIDTH, _widths(cells)]) + "\n"


def _bound(cell: Cell) -> float:
    return HIGHEST_SMALL if cell.share < 0.1 else HIGHEST


def _where(cell: Cell) -> str:
    return f"{cell.scores}, training runs: {cell.design}, {cell.tasks} tasks, training {cell.ratio:g} times tasks"


def _designs(cells: Sequence[Cell]) -> list[str]:
    return list(dict.fromkeys(cell.design for cell in cells))


def _lowest(cells: Iterable[Cell], method: str) -> float:
    return min(cell.covered[method] for cell in cells)


def _by_method(cells: Sequence[Cell]) -> str:
    """Return lowest coverage, and highest where training is under a tenth and elsewhere, by method and design."""
    rows = []
    for name in METHODS:
        row = [name]
        for design in _designs(cells):
            chosen = [cell for cell in cells if cell.design == design]
            small, large = ([c.covered[name] for c in chosen if (c.share < 0.1) == less] for less in (True, False))
            row.append(f"{min(small + large):.1f} / {max(small):.1f} / {max(large):.1f}")
        rows.append(row)
    return markdown_table(["method", *_designs(cells)], rows)


def _by_cell(cells: Sequence[Cell]) -> str:
    """Return the coverage of the harness and of the control by scores, runs, tasks and training's contribution."""
    rows = []
    for scores, design, tasks in dict.fromkeys((c.scores, c.design, c.tasks) for c in cells):
        row = [scores, design, str(tasks)]
        for ratio in RATIOS:
            chosen = [c for c in cells if (c.scores, c.design, c.tasks, c.ratio) == (scores, design, tasks, ratio)]
            ours = [c.covered["harness"] for c in chosen]
            if not ours:
                row.append("")
                continue
            spread = f"{min(ours):.1f}–{max(ours):.1f}" if len(ours) > 1 else f"{ours[0]:.1f}"
            row.append(f"{spread} ({_lowest(chosen, CONTROL):.1f})")
        rows.append(row)
    return markdown_table(["scores", "runs", "tasks", *(f"training {ratio:g}" for ratio in RATIOS)], rows, left=2)


def _widths(cells: Sequence[Cell]) -> str:
    """Return the mean relative width by method and design, over all cells."""
    rows = []
    for name in METHODS:
        chosen = [[c.width[name] for c in cells if c.design == design] for design in _designs(cells)]
        rows.append([name, *(f"{sum(widths) / len(widths):.2f}" for widths in chosen)])
    return markdown_table(["method", *_designs(cells)], rows)


_HEAD = """\
## Differences of recipes

Coverage (%) of nominal 95 % intervals of the difference of two recipes, with several training runs of each on the same
tasks. Training's contribution to the variance goes from 0 to that of recipe × task. Scores are normal (with training ×
task 0.1, 1 and 5 times recipe × task) or drawn at the published level at N = 32. Columns: training runs of each recipe;
each cell: the lowest coverage / the highest where training is under a tenth of the variance / the highest elsewhere.
Wanted from 3 runs on: at least 93.5 / at most 98 / at most 96.5; with 2 runs at least 95. `tasks only` is the control
that must fail. The sources of the methods are in `benchmarks/recipes/methods.py`."""
_BY_CELL = """\
Coverage by cell: that of the harness (lowest–highest over the three sizes of training × task), in brackets the lowest
of `tasks only`. Columns: training's contribution to the variance as a multiple of that of recipe × task."""
_WIDTH = """\
Mean width, as a multiple of the width that normal quantiles and the true variance would give."""

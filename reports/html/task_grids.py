"""The grids of every task as JSON, which the HTML page draws when a task is opened: its pairs, the models' attempts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.core.grid import Grid, Pair, Task
from harness.prompts.grid_text import DIGITS
from reports.gallery.votes import TopByOutput, TopGrids, section_tops
from reports.loading.runs import Section

ATTEMPTS = 2
"""Best-ranked grids shown per model."""
_TO_ASCII = bytes.maketrans(bytes(range(10)), DIGITS.encode())


def task_grids(section: Section) -> list[dict[str, Any]]:
    """Return the grids of every task of a section, in the order of its task table.

    A grid is a text of digits, its rows joined by ``/``; null where it is unknown.
    """
    by_id = {task.id: task for task in section.tasks}
    tasks = [by_id[name] for name in section.scored[0].tasks.ids]
    tops = section_tops(section, tasks, ATTEMPTS)
    return [_task(task, tops) for task in tasks]


def _task(task: Task, tops: TopByOutput) -> dict[str, Any]:
    """Return train pairs, test inputs and outputs, and the models' attempts."""
    return {
        "train": [_pair(pair) for pair in task.train],
        "test": [
            {"pair": _pair(pair), "models": [_model(top) for top in tops[task.id, index]]}
            for index, pair in enumerate(task.test)
        ],
    }


def _pair(pair: Pair) -> Sequence[str | None]:
    return [_text(pair.input), None if pair.output is None else _text(pair.output)]


def _model(top: TopGrids) -> dict[str, Any]:
    """Return the votes of one model: of how many, its best grids with their counts, and the exact grid's rank."""
    return {
        "n": top.n,
        "top": [[_text(group.grid), group.count] for group in top.top],
        "exact": None if top.exact_rank is None else [top.exact_rank, top.exact_votes],
    }


def _text(grid: Grid) -> str:
    return "/".join(row.translate(_TO_ASCII).decode("ascii") for row in grid.rows())

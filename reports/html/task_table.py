"""Compute the table of all tasks that the HTML page sorts, filters and opens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from reports.html.task_grids import task_grids
from reports.loading.runs import Section

SOLVED = 1 - 1e-9
CellState = Literal["solved", "lost", "never"]
"""What a model made of a task: its two attempts solve it; it proposed the exact grid of every test output, but lost one
in the vote (or by another rule); it never proposed the exact grid of a test output."""
STATES = ("solved", "unsolved", "differing")
"""Solved by every model's two attempts, by none's, or by those of some models only."""


@dataclass(frozen=True, slots=True)
class TaskCell:
    """The scores of one model on one task, averaged over its test outputs."""

    vote_2: float
    accuracy: float | None
    """None if it is unknown because the run stopped early."""
    proposed: bool
    """Whether the exact grid of every test output was proposed."""

    @property
    def solved(self) -> bool:
        """Return whether two attempts solve every test output."""
        return self.vote_2 >= SOLVED

    @property
    def state(self) -> CellState:
        """Return what the model made of the task."""
        return "solved" if self.solved else "lost" if self.proposed else "never"

    @property
    def sort_key(self) -> float:
        """Return vote_2 plus accuracy, the number by which the column is sorted."""
        return round(self.vote_2 + (self.accuracy or 0.0), 6)


@dataclass(frozen=True, slots=True)
class TaskRow:
    """One task with a cell per model."""

    task: str
    outputs: int
    """Number of test outputs."""
    state: str
    cells: tuple[TaskCell, ...]
    gallery_heading: str | None
    """Heading of the task in the gallery, if it is there."""


@dataclass(frozen=True)
class TaskTable:
    """Every task of one dataset, by id."""

    number: int
    """Number of its section, from 1."""
    heading: str
    models: tuple[str, ...]
    rows: tuple[TaskRow, ...]
    grids: Sequence[Mapping[str, Any]]
    """The grids of each task, in the order of ``rows`` (``reports.html.task_grids``)."""
    has_views: bool = False
    """Whether the accuracy of some model is that of enumerated views."""
    by_vote: bool = True
    """Whether all models' attempts are chosen by the vote."""


def task_table(section: Section, gallery_headings: Mapping[str, str]) -> TaskTable:
    """Return the table of a section; its predictions are read again for the grids.

    Args:
        gallery_headings: by task id, the heading of the task in the gallery, if it is there.
    """
    rows, grids = [], task_grids(section)
    for index, task in enumerate(section.scored[0].tasks.ids):
        cells = tuple(
            TaskCell(
                float(scores.tasks.values_of("vote_2")[index]),
                float(scores.tasks.values_of("accuracy")[index]) if "accuracy" in scores.measured else None,
                # After early stopping, scores count exact predictions in the first round only; the grids are of all.
                all(
                    output.exact or test["models"][place]["exact"] is not None
                    for output, test in zip(scores.outputs[task], grids[index]["test"], strict=True)
                ),
            )
            for place, scores in enumerate(section.scored)
        )
        solved = sum(cell.solved for cell in cells)
        state = "solved" if solved == len(cells) else "differing" if solved else "unsolved"
        rows.append(TaskRow(task, len(section.scored[0].outputs[task]), state, cells, gallery_headings.get(task)))
    models = tuple(scores.model for scores in section.scored)
    has_views = any(scores.enumeration is not None for scores in section.scored)
    by_vote = all(scores.rule is None for scores in section.scored)
    return TaskTable(section.number, section.heading, models, tuple(rows), grids, has_views, by_vote)

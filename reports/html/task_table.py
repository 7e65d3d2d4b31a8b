"""Compute the table of all tasks that the HTML page sorts and filters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from reports.loading.runs import Section

SOLVED = 1 - 1e-9
STATES = ("solved", "unsolved", "disagreeing")
"""Solved by every model's two attempts, by none's, or by those of some models only."""


@dataclass(frozen=True, slots=True)
class TaskCell:
    """The scores of one model on one task, averaged over its test outputs."""

    vote_2: float
    accuracy: float | None
    """None if it is unknown because the run stopped early."""

    @property
    def solved(self) -> bool:
        """Return whether two attempts solve every test output."""
        return self.vote_2 >= SOLVED

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
    has_views: bool = False
    """Whether the accuracy of some model is that of enumerated views."""


def task_table(section: Section, gallery_headings: Mapping[str, str]) -> TaskTable:
    """Return the table of a section.

    Args:
        gallery_headings: by task id, the heading of the task in the gallery, if it is there.
    """
    rows = []
    for index, task in enumerate(section.scored[0].tasks.ids):
        cells = tuple(
            TaskCell(
                float(scores.tasks.values_of("vote_2")[index]),
                float(scores.tasks.values_of("accuracy")[index]) if "accuracy" in scores.measured else None,
            )
            for scores in section.scored
        )
        solved = sum(cell.solved for cell in cells)
        state = "solved" if solved == len(cells) else "disagreeing" if solved else "unsolved"
        rows.append(TaskRow(task, len(section.scored[0].outputs[task]), state, cells, gallery_headings.get(task)))
    models = tuple(scores.model for scores in section.scored)
    has_views = any(scores.enumeration is not None for scores in section.scored)
    return TaskTable(section.number, section.heading, models, tuple(rows), has_views)

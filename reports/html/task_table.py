"""Every task with what each model made of it: the table that the HTML page sorts and filters."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from harness.results.table_format import percent
from reports.loading.runs import Section

SOLVED = 1 - 1e-9
STATES = ("solved", "unsolved", "disagreeing")
"""Solved by every model's two attempts, by none's, or by some only."""


@dataclass(frozen=True, slots=True)
class TaskCell:
    """One model on one task: whether its two attempts solve every output, and its share of exact predictions."""

    solved: bool
    vote_2: float
    rate: float | None
    """None where a run that stopped early cannot tell."""

    @property
    def text(self) -> str:
        """What the cell shows beside its mark."""
        return "" if self.rate is None else percent(self.rate)

    @property
    def order(self) -> float:
        """What the column is sorted by: the vote first, then the share of exact predictions."""
        return round(self.vote_2 + (self.rate or 0.0), 6)


@dataclass(frozen=True, slots=True)
class TaskRow:
    """One task."""

    task: str
    outputs: int
    state: str
    cells: tuple[TaskCell, ...]
    shown: bool
    """Whether the gallery has it."""


@dataclass(frozen=True)
class TaskTable:
    """Every task of one dataset, by id; ``number`` counts the datasets of a page from 1."""

    number: int
    heading: str
    models: tuple[str, ...]
    rows: tuple[TaskRow, ...]

    def count(self, state: str) -> int:
        """How many tasks have a state."""
        return sum(row.state == state for row in self.rows)


def task_table(number: int, section: Section, shown: Collection[str]) -> TaskTable:
    """The table of a section; ``shown`` are the ids of its tasks in the gallery."""
    rows = []
    for index, task in enumerate(section.scored[0].tasks.ids):
        cells = tuple(
            TaskCell(
                bool(scores.tasks.of("vote_2")[index] >= SOLVED),
                float(scores.tasks.of("vote_2")[index]),
                float(scores.tasks.of("accuracy")[index]) if "accuracy" in scores.measured else None,
            )
            for scores in section.scored
        )
        solved = sum(cell.solved for cell in cells)
        state = "solved" if solved == len(cells) else "disagreeing" if solved else "unsolved"
        rows.append(TaskRow(task, len(section.scored[0].outputs[task]), state, cells, task in shown))
    models = tuple(scores.model for scores in section.scored)
    return TaskTable(number, section.heading, models, tuple(rows))

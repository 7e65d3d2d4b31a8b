"""A task with the best candidates of every model, drawn in a notebook."""

from __future__ import annotations

from dataclasses import dataclass

from harness.core.errors import DataError
from harness.core.grid import Grid, Task
from harness.frames.notebook.grid_html import captioned, row_html, task_html
from harness.predictions.model_rescores import NOT_RESCORED
from harness.predictions.prediction_groups import ModelPredictions
from harness.scoring.prediction_loader import SavedPredictions
from harness.voting.ranking import RankedGrid
from harness.voting.selection_rules import VOTE, get_rule

SHOWN = 3
"""Candidates of a test output that are drawn: the two attempts and the next one."""


@dataclass(frozen=True, eq=False)
class ShownAttempts:
    """The best candidates of every model for one task."""

    saved: SavedPredictions
    task: Task
    rule: str

    def ranking(self, predictions: ModelPredictions, index: int) -> list[RankedGrid]:
        """Return the candidates of a model for test output ``index``, best first."""
        rescores = self.saved.rescores.get(predictions.model, NOT_RESCORED)
        votes = predictions.outputs[self.task.id][index].votes()
        return rescores.rank(get_rule(self.rule), self.task.id, index, votes)

    def __repr__(self) -> str:
        lines = [f"task {self.task.id}, candidates by {self.rule}, best first:"]
        for predictions, index, truth in self._outputs():
            ranked = "; ".join(_caption(entry, truth) for entry in self.ranking(predictions, index)[:SHOWN])
            lines.append(f"{predictions.model}, test {index + 1}: {ranked or 'none'}")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        parts = [task_html(self.task)]
        for predictions, index, truth in self._outputs():
            entries = self.ranking(predictions, index)[:SHOWN]
            drawn = [
                captioned(_caption(entry, truth), [entry.grid], None if truth is None else entry.grid == truth)
                for entry in entries
            ]
            heading = captioned(f"{predictions.model}, test {index + 1}" + ("" if drawn else ": no candidate"), [])
            parts.append(row_html(heading + "".join(drawn)))
        return "".join(parts)

    def _outputs(self) -> list[tuple[ModelPredictions, int, Grid | None]]:
        """Return every model with every test output and its exact grid."""
        return [
            (predictions, index, pair.output)
            for predictions in self.saved.predictions
            for index, pair in enumerate(self.task.test)
        ]


def show_attempts(saved: SavedPredictions, task_id: str, rule: str | None) -> ShownAttempts:
    """Return a task with the best candidates of every model.

    Args:
        rule: the selection rule; None takes the vote.

    Raises:
        DataError: no such task was declared.
    """
    for task in saved.tasks:
        if task.id == task_id:
            return ShownAttempts(saved, task, rule or VOTE)
    raise DataError(f"task {task_id} is none of the {len(saved.tasks)} tasks of these predictions")


def _caption(entry: RankedGrid, truth: Grid | None) -> str:
    votes = f"{entry.count} vote{'' if entry.count == 1 else 's'}"
    return votes if truth is None else f"{votes}, {'exact' if entry.grid == truth else 'wrong'}"

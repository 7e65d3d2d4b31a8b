"""The candidates of saved predictions as a data frame, ranked as the headline rule ranks them."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd

from harness.frames.columns import Schema, make_frame
from harness.frames.prediction_frame import GridValue, grid_id
from harness.predictions.model_rescores import NOT_RESCORED
from harness.predictions.prediction_groups import ModelPredictions
from harness.scoring.prediction_loader import SavedPredictions
from harness.voting.selection_rules import VOTE, get_rule

CANDIDATES: Schema = {
    "model": "category",
    "task_id": "category",
    "test_index": "Int16",
    "rank": "Int32",
    "tie": "Int32",
    "votes": "Int32",
    "views": "Int32",
    "exact": "boolean",
    "mean_logprob": "Float64",
    "rescore": "Float64",
    "height": "Int16",
    "width": "Int16",
    "grid_id": "Int64",
}


def candidate_frame(saved: SavedPredictions, rule: str | None = None, grid: GridValue | None = None) -> pd.DataFrame:
    """Return every candidate of every test output, best first.

    ``rank`` counts from 1; candidates with the same ``tie`` are tied, and listed in the order of their cells. Both
    are missing for what the rule does not rank. ``rescore`` is the sum of the log-probabilities under the fixed views.

    Args:
        rule: name of the selection rule; None takes the vote.
        grid: gives the values of the column ``grid``; None leaves it out.
    """
    schema: Schema = CANDIDATES if grid is None else {**CANDIDATES, "grid": "object"}
    rows = (row for model in saved.predictions for row in _rows(saved, model, rule or VOTE, grid))
    return make_frame(schema, rows)


def _rows(
    saved: SavedPredictions, predictions: ModelPredictions, rule: str, grid_value: GridValue | None
) -> Iterator[tuple[object, ...]]:
    """Yield the rows of one model."""
    truths = {task.id: [pair.output for pair in task.test] for task in saved.tasks}
    rescores = saved.rescores.get(predictions.model, NOT_RESCORED)
    for task, outputs in predictions.outputs.items():
        for index, output in enumerate(outputs):
            ranking = rescores.rank(get_rule(rule), task, index, output.votes())
            places = {entry.grid: (rank, entry) for rank, entry in enumerate(ranking, 1)}
            rescored = rescores.outputs.get((task, index), {})
            truth = truths[task][index]
            for grid in [*places, *(grid for grid in output.votes_by_grid if grid not in places)]:
                votes = output.votes_by_grid[grid]
                rank, entry = places.get(grid, (None, None))
                row = (
                    predictions.model, task, index, rank, None if entry is None else entry.tie, len(votes),
                    len({vote.view_index for vote in votes}), None if truth is None else grid == truth,
                    None if entry is None else entry.mean_logprob,
                    math.fsum(rescored[grid]) if grid in rescored else None, *grid.shape, grid_id(grid),
                )  # fmt: skip
                yield row if grid_value is None else (*row, grid_value(grid))

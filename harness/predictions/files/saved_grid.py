"""The grid of a saved attempt, where a value that is no grid is a failed prediction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from harness.core.errors import DataError, GridError
from harness.core.grid import Grid, Task, is_long_row
from harness.runs.logs.prediction_reader import Prediction


def read_grid(value: object, where: str) -> tuple[str, Grid | None]:
    """Return the outcome and the grid of an attempt; a value that is no grid is a failed prediction, not an error.

    A row longer than 30 is a grid here; ``within_limits`` refuses it where its task has no such rows.

    Raises:
        DataError: the value is an object, which no format has in place of a grid.
    """
    if isinstance(value, dict):
        raise DataError(f"{where}: expected a grid, got an object; is this the ARC Prize layout? (--format arcprize)")
    if value is None or value == [] or isinstance(value, str):
        return "unparsed", None
    try:
        return "grid", Grid.from_rows(value, where, long_rows=True)
    except GridError as error:
        return error.kind, None


def within_limits(predictions: Iterable[Prediction], tasks: Sequence[Task]) -> Iterator[Prediction]:
    """Yield predictions; one that is a row longer than 30 becomes ``bad_shape`` unless its task has such rows."""
    long_tasks = {task.id for task in tasks if task.has_long_rows()}
    for prediction in predictions:
        grid = prediction.grid
        refused = grid is not None and is_long_row(*grid.shape) and prediction.task_id not in long_tasks
        yield replace(prediction, outcome="bad_shape", grid=None) if refused else prediction

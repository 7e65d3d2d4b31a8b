"""Predictions, enumerated views and the proposals of a pool as the rows of one table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.core.errors import ConfigError
from harness.core.grid import Grid
from harness.frames.columns import Columns, Schema
from harness.predictions.files.prediction_tables import PooledVote
from harness.predictions.pooled_outputs import POOL
from harness.predictions.prediction_stream import PredictionStream
from harness.runs.logs.prediction_reader import EnumeratedView, Prediction
from harness.runs.schemas.prediction_schema import OutputKey

DRAWN: Schema = {
    "model": "category",
    "task_id": "category",
    "test_index": "Int16",
    "sample_index": "Int32",
    "symmetry": "category",
    "outcome": "category",
    "exact": "boolean",
    "cumulative_logprob": "Float64",
    "n_tokens": "Int32",
    "seconds": "Float64",
    "grid_id": "Int64",
}
"""Columns of drawn predictions."""

ANSWERS: Schema = {**DRAWN, "answer_index": "Int32"}
"""Columns of the answers of enumerated views."""

VIEW_COLUMNS: Schema = {
    "answers": "Int32",
    "unexplored": "Float64",
    "truncated": "Int32",
    "dropped": "Int32",
    "requests": "Int32",
    "greedy_outcome": "category",
}
"""Columns that only the row of a view has, whose grid is the answer of temperature 0."""

POOLED: Schema = {
    "model": "category",
    "member": "category",
    "view_space": "category",
    "task_id": "category",
    "test_index": "Int16",
    "view": "Int32",
    "sample_index": "Int32",
    "symmetry": "category",
    "exact": "boolean",
    "cumulative_logprob": "Float64",
    "mean_logprob": "Float64",
    "grid_id": "Int64",
}
"""Columns of the proposals of a pool."""

NOT_OF_ANSWERS = tuple(VIEW_COLUMNS)
NOT_OF_VIEWS = ("answer_index", "cumulative_logprob")

GridValue = Callable[[Grid], object]
"""What the column ``grid`` holds of a grid."""


def grid_id(grid: Grid) -> int:
    """Return 63 bits that identify a grid: equal for equal grids of all runs, models and candidates."""
    content = bytes((grid.height, grid.width)) + grid.cells
    return int.from_bytes(blake2b(content, digest_size=8).digest(), "big") >> 1


class GridArrays:
    """Grids as arrays of numpy; equal grids share one array, which cannot be written to."""

    def __init__(self) -> None:
        self._arrays: dict[Grid, NDArray[np.uint8]] = {}

    def __call__(self, grid: Grid) -> NDArray[np.uint8]:
        """Return a grid as an array of shape (height, width)."""
        if (array := self._arrays.get(grid)) is None:
            array = self._arrays[grid] = grid_array(grid)
        return array


def grid_array(grid: Grid) -> NDArray[np.uint8]:
    """Return a grid as an array of shape (height, width) that cannot be written to."""
    return np.frombuffer(grid.cells, np.uint8).reshape(grid.shape)


@dataclass(frozen=True, slots=True)
class PredictionTable:
    """The rows of a stream of predictions with their columns."""

    columns: Columns
    rows: Iterator[tuple[object, ...]]


def prediction_table(stream: PredictionStream, grid: GridValue | None = None, texts: bool = False) -> PredictionTable:
    """Return predictions as a table.

    Args:
        grid: gives the values of the column ``grid``; None leaves it out.
        texts: whether to have the column ``text``, the server's answers. Pools have none.
    """
    if stream.votes is not None:
        schema, texts = POOLED, False
    else:
        schema = DRAWN if stream.views is None else {**ANSWERS, **VIEW_COLUMNS}
    schema = {**schema, **({} if grid is None else {"grid": "object"}), **({"text": "object"} if texts else {})}
    rows = _Rows(stream, grid, texts)
    if stream.votes is not None:
        return PredictionTable(Columns(schema), map(rows.vote_row, stream.votes))
    if stream.views is not None:
        return PredictionTable(Columns(schema), rows.view_rows(stream.views))
    assert stream.drawn is not None
    return PredictionTable(Columns(schema), map(rows.row, stream.drawn))


def rows_of_views(table: pd.DataFrame, of_views: bool, path: Path) -> pd.DataFrame:
    """Return the rows of views of a table, or all others, without the columns that only the other rows have.

    Raises:
        ConfigError: views are requested of predictions that were drawn.
    """
    if "answers" not in table:
        if of_views:
            raise ConfigError(f"{path}: only runs with --search dfs have views")
        return table
    is_view = table["answers"].notna()
    rows = table[is_view if of_views else ~is_view]
    return rows.drop(columns=list(NOT_OF_VIEWS if of_views else NOT_OF_ANSWERS)).reset_index(drop=True)


class _Rows:
    """Makes the rows of predictions."""

    def __init__(self, stream: PredictionStream, grid: GridValue | None, texts: bool) -> None:
        self._truths: dict[OutputKey, Grid | None] = {
            (task.id, index): pair.output for task in stream.tasks for index, pair in enumerate(task.test)
        }
        self._grid, self._texts = grid, texts

    def row(self, p: Prediction) -> tuple[object, ...]:
        """Return the row of a drawn prediction."""
        return (*self._fields(p), *self._more(p.grid, p.text))

    def view_rows(self, views: Iterator[EnumeratedView]) -> Iterator[tuple[object, ...]]:
        """Yield the rows of the answers of each view, likeliest first, then the row of the view."""
        no_summary = (None,) * len(VIEW_COLUMNS)
        for view in views:
            for index, answer in enumerate(view.answers):
                yield (*self._fields(answer), index, *no_summary, *self._more(answer.grid, answer.text))
            greedy = view.greedy
            grid = None if greedy is None else greedy.grid
            key = (view.task_id, view.test_index)
            exact = None if greedy is None else self._exact(key, grid)
            identifier = None if grid is None else grid_id(grid)
            yield (
                view.model, *key, view.sample, view.view, view.outcome, exact, None, view.n_tokens, view.seconds,
                identifier, None, len(view.answers), view.unexplored, view.truncated, view.dropped, view.requests,
                None if greedy is None else greedy.outcome, *self._more(grid, None if greedy is None else greedy.text),
            )  # fmt: skip

    def vote_row(self, row: PooledVote) -> tuple[object, ...]:
        """Return the row of a pool's proposal."""
        vote = row.vote
        return (
            POOL, row.member, row.view_space, *row.key, vote.view_index, vote.sample,
            vote.view if row.names_view else None, self._exact(row.key, vote.grid), vote.sum_logprob,
            vote.mean_logprob, grid_id(vote.grid), *self._more(vote.grid, None),
        )  # fmt: skip

    def _fields(self, p: Prediction) -> tuple[object, ...]:
        grid = p.grid
        return (
            p.model, p.task_id, p.test_index, p.sample, p.view, p.outcome, self._exact((p.task_id, p.test_index), grid),
            p.sum_logprob, p.n_tokens, p.seconds, None if grid is None else grid_id(grid),
        )  # fmt: skip

    def _more(self, grid: Grid | None, text: str | None) -> tuple[object, ...]:
        """Return the values of the columns that were requested."""
        grids = () if self._grid is None else (None if grid is None else self._grid(grid),)
        return (*grids, text) if self._texts else grids

    def _exact(self, key: OutputKey, grid: Grid | None) -> bool | None:
        """Return whether a prediction equals the test output; None if that is not known."""
        truth = self._truths.get(key)
        return None if truth is None else grid == truth

"""The tasks of a dataset for notebooks: arrays, a data frame, and drawings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from html import escape

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.core.errors import DataError
from harness.core.grid import Pair, Task
from harness.data.dataset import Dataset
from harness.data.spec import open_dataset
from harness.frames.columns import Schema, make_frame
from harness.frames.notebook.grid_html import task_html
from harness.frames.prediction_frame import grid_array

Array = NDArray[np.uint8]
"""A grid of shape (height, width) with the colours 0-9, which cannot be written to."""

_SHOWN = 3
TASKS: Schema = {
    "task_id": "category",
    "train_pairs": "Int16",
    "test_outputs": "Int16",
    "known_outputs": "Int16",
    "largest_side": "Int16",
    "colours": "Int16",
}


@dataclass(frozen=True)
class ShownTask:
    """One task; a notebook draws its grids."""

    task: Task

    @property
    def id(self) -> str:
        return self.task.id

    @property
    def train(self) -> list[tuple[Array, Array | None]]:
        """The train pairs as (input, output)."""
        return [_arrays(pair) for pair in self.task.train]

    @property
    def test(self) -> list[tuple[Array, Array | None]]:
        """The test pairs as (input, output); None for an output that is not known."""
        return [_arrays(pair) for pair in self.task.test]

    def __repr__(self) -> str:
        return f"<task {self.id}: {len(self.task.train)} train pairs, {len(self.task.test)} test outputs>"

    def _repr_html_(self) -> str:
        return task_html(self.task)


@dataclass(frozen=True)
class TaskSet:
    """The tasks of a dataset, by index or id; a notebook draws the first ones."""

    dataset: Dataset

    @property
    def ids(self) -> list[str]:
        return list(self.dataset.ids)

    def __len__(self) -> int:
        return len(self.dataset.ids)

    def __iter__(self) -> Iterator[ShownTask]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, key: int | str) -> ShownTask:
        """Return a task by its id, or by its index.

        Raises:
            DataError: the dataset has no task with this id. IndexError: nor so many tasks.
        """
        if isinstance(key, int):
            return ShownTask(self.dataset.task(range(len(self))[key]))
        if key not in self._index_of:
            raise DataError(f"dataset {self.dataset.spec} has no task {key!r}")
        return ShownTask(self.dataset.task(self._index_of[key]))

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row per task: its numbers of pairs, the longest side of its grids, and the number of its colours."""
        return make_frame(TASKS, (_row(shown.task) for shown in self))

    @cached_property
    def _index_of(self) -> dict[str, int]:
        return {task: index for index, task in enumerate(self.dataset.ids)}

    def __repr__(self) -> str:
        return f"<dataset {self.dataset.spec}: {len(self)} tasks>"

    def _repr_html_(self) -> str:
        heading = f"<p>dataset <b>{escape(self.dataset.spec)}</b>: {len(self)} tasks</p>"
        rest = "<p>…</p>" if len(self) > _SHOWN else ""
        return heading + "".join(task_html(self[index].task) for index in range(min(_SHOWN, len(self)))) + rest


def load_dataset(spec: str) -> TaskSet:
    """Return the tasks of a dataset; docs/data.md lists the specs."""
    return TaskSet(open_dataset(spec))


def _arrays(pair: Pair) -> tuple[Array, Array | None]:
    return grid_array(pair.input), None if pair.output is None else grid_array(pair.output)


def _row(task: Task) -> tuple[object, ...]:
    pairs = task.train + task.test
    grids = [grid for pair in pairs for grid in (pair.input, pair.output) if grid is not None]
    return (
        task.id, len(task.train), len(task.test), sum(pair.output is not None for pair in task.test),
        max(max(grid.shape) for grid in grids), len(set(b"".join(grid.cells for grid in grids))),
    )  # fmt: skip

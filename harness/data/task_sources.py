"""Where tasks come from inside a file: whole tasks, lists of pairs to draw from, and lists of variants."""

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

TRAIN_PAIRS = (3, 5)
"""How many train pairs a task drawn from a list of pairs has; one more is its test."""
MIN_PAIRS = TRAIN_PAIRS[0] + 1
"""The fewest pairs from which a task can be drawn."""
OVERSIZE = "pair: a side over 30"
"""Why a pair is left out, for counts."""
SHOWN_DIGITS = 16
"""How many digits of a ``content_digest`` are of what a prompt shows; the rest is of the test outputs."""


class Source(Protocol):
    """What stands under one id of a file."""

    @property
    def id(self) -> str:
        """The id."""
        ...

    def draw(self, stream: Stream) -> Task:
        """A task of that id; the same stream gives the same task."""
        ...

    def pairs(self) -> tuple[Pair, ...]:
        """Every pair that a draw may show."""
        ...


@dataclass(frozen=True, slots=True)
class Whole:
    """A task with its own train and test pairs: every draw is the same."""

    task: Task

    @property
    def id(self) -> str:
        return self.task.id

    def draw(self, stream: Stream) -> Task:
        return self.task

    def pairs(self) -> tuple[Pair, ...]:
        return self.task.train + self.task.test


@dataclass(frozen=True, slots=True)
class Pool:
    """Pairs of one rule, of which each draw shows ``low``-``high`` as train pairs and one more as the test."""

    id: str
    examples: tuple[Pair, ...]
    low: int = TRAIN_PAIRS[0]
    high: int = TRAIN_PAIRS[1]
    oversize: int = 0
    """How many pairs with a side over 30 were left out."""

    def draw(self, stream: Stream) -> Task:
        return draw_task(self.id, self.examples, stream, self.low, self.high)

    def pairs(self) -> tuple[Pair, ...]:
        return self.examples


@dataclass(frozen=True, slots=True)
class Variants:
    """Several forms of one task, of which each draw takes one."""

    id: str
    options: tuple[Source, ...]

    def draw(self, stream: Stream) -> Task:
        return stream.choice(self.options).draw(stream)

    def pairs(self) -> tuple[Pair, ...]:
        return tuple(pair for option in self.options for pair in option.pairs())


def draw_task(name: str, pairs: Sequence[Pair], stream: Stream, low: int, high: int) -> Task:
    """A task of ``low``-``high`` train pairs and one test pair, all different places of the list.

    Raises:
        DataError: fewer than ``low + 1`` pairs.
    """
    if len(pairs) <= low:
        raise DataError(f"task {name}: {len(pairs)} pairs, but {low} train pairs and a test need {low + 1}")
    drawn = stream.sample(pairs, stream.between(low, min(high, len(pairs) - 1)) + 1)
    return Task(name, drawn[:-1], drawn[-1:])


def fixed_stream(task_id: str) -> Stream:
    """The stream of a task's fixed draw, used where the caller gives none."""
    return Stream("draw", task_id)


@dataclass(frozen=True)
class SourceList:
    """A dataset of sources held in memory, drawn from anew each time."""

    spec: str
    sources: tuple[Source, ...]
    origin: str = ""

    @cached_property
    def ids(self) -> Sequence[str]:
        return [source.id for source in self.sources]

    @property
    def skipped(self) -> Counter[str]:
        """What was left out, by reason."""
        oversize = sum(source.oversize for source in self.sources if isinstance(source, Pool))
        return Counter({OVERSIZE: oversize} if oversize else {})

    def task(self, index: int, stream: Stream | None = None) -> Task:
        source = self.sources[index]
        return source.draw(fixed_stream(source.id) if stream is None else stream)

    def digest(self) -> str:
        """A hash of every pair that may be drawn."""
        sha = hashlib.sha256()
        for name, pairs in self.material():
            sha.update(name.encode() + b"\0" + b"".join(map(pair_bytes, pairs)))
        return sha.hexdigest()[:16]

    def material(self) -> Iterator[tuple[str, tuple[Pair, ...]]]:
        """Every id with every pair that a draw of it may show."""
        for source in self.sources:
            yield source.id, source.pairs()

    def select(self, indices: Sequence[int], spec: str) -> SourceList:
        """Some of the sources."""
        return SourceList(spec, tuple(self.sources[i] for i in indices), self.origin)


def content_digest(task: Task) -> str:
    """Return 32 hex digits that name a task's content: 16 of what a prompt shows, then 16 of the test outputs.

    The id does not count. SHA-256 over the train pairs and test inputs, and over the test outputs.
    """
    shown = b"".join(map(pair_bytes, task.train)) + b"?" + b"".join(_grid_bytes(pair.input) for pair in task.test)
    outputs = b"".join(_grid_bytes(pair.output) for pair in task.test)
    return "".join(hashlib.sha256(part).hexdigest()[:SHOWN_DIGITS] for part in (shown, outputs))


def unlabelled(task: Task) -> Task:
    """Return the task without its test outputs."""
    return replace(task, test=tuple(replace(pair, output=None) for pair in task.test))


def pair_bytes(pair: Pair) -> bytes:
    """A pair as bytes, different for different pairs."""
    return _grid_bytes(pair.input) + _grid_bytes(pair.output)


def _grid_bytes(grid: Grid | None) -> bytes:
    return b"-" if grid is None else bytes((grid.height, grid.width)) + grid.cells

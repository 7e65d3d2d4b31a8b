"""What one id of a JSON file holds: a whole task, a list of pairs to draw tasks from, or several variants of a task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from harness.core.errors import DataError
from harness.core.grid import Pair, Task
from harness.core.random_stream import Stream

TRAIN_PAIRS = (3, 5)
"""Least and greatest number of train pairs of a task drawn from a list of pairs. One more pair is its test pair."""
MIN_PAIRS = TRAIN_PAIRS[0] + 1
"""The fewest pairs from which a task can be drawn."""


class TaskSource(Protocol):
    """Gives tasks of one id."""

    @property
    def id(self) -> str:
        """The id of every task drawn from this source."""
        ...

    def draw_task(self, stream: Stream) -> Task:
        """Return a task. Equal streams give equal tasks."""
        ...

    def pairs(self) -> tuple[Pair, ...]:
        """Return every pair that a drawn task can contain."""
        ...


@dataclass(frozen=True, slots=True)
class FixedTask:
    """A task whose file says which pairs are train and which are test: every draw is equal."""

    task: Task

    @property
    def id(self) -> str:
        return self.task.id

    def draw_task(self, stream: Stream) -> Task:
        return self.task

    def pairs(self) -> tuple[Pair, ...]:
        return self.task.train + self.task.test


@dataclass(frozen=True, slots=True)
class PairList:
    """Pairs of one rule. Each draw takes ``low`` to ``high`` of them as train pairs and one more as the test pair."""

    id: str
    examples: tuple[Pair, ...]
    low: int = TRAIN_PAIRS[0]
    high: int = TRAIN_PAIRS[1]
    oversize: int = 0
    """Number of pairs left out because a side is over 30."""

    def draw_task(self, stream: Stream) -> Task:
        return draw_from_pairs(self.id, self.examples, stream, self.low, self.high)

    def pairs(self) -> tuple[Pair, ...]:
        return self.examples


@dataclass(frozen=True, slots=True)
class TaskVariants:
    """Several variants of one task. Each draw picks one."""

    id: str
    options: tuple[TaskSource, ...]

    def draw_task(self, stream: Stream) -> Task:
        return stream.choice(self.options).draw_task(stream)

    def pairs(self) -> tuple[Pair, ...]:
        return tuple(pair for option in self.options for pair in option.pairs())


def draw_from_pairs(name: str, pairs: Sequence[Pair], stream: Stream, low: int, high: int) -> Task:
    """Draw a task of ``low`` to ``high`` train pairs and one test pair, without replacement.

    Raises:
        DataError: fewer than ``low + 1`` pairs.
    """
    if len(pairs) <= low:
        raise DataError(f"task {name}: {len(pairs)} pairs, but {low} train pairs and a test need {low + 1}")
    drawn = stream.sample(pairs, stream.between(low, min(high, len(pairs) - 1)) + 1)
    return Task(name, drawn[:-1], drawn[-1:])


def fixed_stream(task_id: str) -> Stream:
    """Return the stream of a task's fixed draw, which is used if the caller gives no stream."""
    return Stream("draw", task_id)

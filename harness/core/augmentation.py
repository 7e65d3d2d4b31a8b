"""Invertible augmentations of a task: a symmetry, a colour permutation and an order of the train pairs."""

from __future__ import annotations

from dataclasses import dataclass

from harness.core.grid import COLOURS, Grid, Pair, Task
from harness.core.random_stream import Stream
from harness.core.symmetry import SYMMETRIES, apply_symmetry, inverse_symmetry

ALL_COLOURS_PROBABILITY = 0.1
"""Share of colour permutations that may move colour 0. In the others it stays 0: it is most tasks' background."""
_OTHER_BYTES = bytes(range(COLOURS, 256))


@dataclass(frozen=True, slots=True)
class Augmentation:
    """One view of a task. ``invert`` undoes ``apply`` for grids of every shape."""

    symmetry: str
    colours: tuple[int, ...]
    """Colour c becomes ``colours[c]``; a permutation of 0–9."""
    order: tuple[int, ...]
    """The k-th train pair of the view is train pair ``order[k]`` of the task."""

    def apply(self, grid: Grid) -> Grid:
        """Return the grid as the model sees it."""
        transformed = apply_symmetry(self.symmetry, grid)
        return Grid(transformed.height, transformed.width, transformed.cells.translate(_table(self.colours)))

    def invert(self, grid: Grid) -> Grid:
        """Return a predicted grid in the task's own orientation and colours."""
        inverse = bytearray(COLOURS)
        for old, new in enumerate(self.colours):
            inverse[new] = old
        recoloured = Grid(grid.height, grid.width, grid.cells.translate(_table(tuple(inverse))))
        return apply_symmetry(inverse_symmetry(self.symmetry), recoloured)

    def apply_task(self, task: Task) -> Task:
        """Return the task under this view, with the same id and the same order of test pairs."""
        train = tuple(self._apply_pair(task.train[i]) for i in self.order)
        return Task(task.id, train, tuple(map(self._apply_pair, task.test)))

    def _apply_pair(self, pair: Pair) -> Pair:
        return Pair(self.apply(pair.input), None if pair.output is None else self.apply(pair.output))


def identity_view(n_train: int) -> Augmentation:
    """Return the augmentation that changes nothing, for a task with ``n_train`` train pairs."""
    return Augmentation("identity", tuple(range(COLOURS)), tuple(range(n_train)))


def random_colours(stream: Stream) -> tuple[int, ...]:
    """Return a random permutation of 0–9: uniform with probability 0.1, else uniform among those that keep 0."""
    if stream.uniform() < ALL_COLOURS_PROBABILITY:
        return stream.permutation(COLOURS)
    return (0, *(c + 1 for c in stream.permutation(COLOURS - 1)))


def random_view(stream: Stream, n_train: int) -> Augmentation:
    """Return an augmentation with uniform symmetry and order of ``n_train`` pairs, and random colours."""
    return Augmentation(stream.choice(SYMMETRIES), random_colours(stream), stream.permutation(n_train))


def sampling_view(seed: int, task_id: str, view: int, n_train: int) -> Augmentation:
    """Return the view with index ``view`` of a task in a run.

    Views cycle through the eight symmetries; colours and pair order are random. The result depends on the run's seed,
    the task id and the view only, so that all models of a run get the same views.
    """
    stream = Stream("view", seed, task_id, view)
    return Augmentation(SYMMETRIES[view % len(SYMMETRIES)], random_colours(stream), stream.permutation(n_train))


def resplit(stream: Stream, task: Task) -> Task:
    """Return a task whose pairs are shuffled and split again into as many train and test pairs.

    Used in training. A task with an unknown test output is returned unchanged.
    """
    pairs = task.train + task.test
    if any(pair.output is None for pair in pairs):
        return task
    shuffled = stream.sample(pairs, len(pairs))
    return Task(task.id, shuffled[: len(task.train)], shuffled[len(task.train) :])


def _table(colours: tuple[int, ...]) -> bytes:
    """Return the table for ``bytes.translate`` that applies a colour permutation."""
    return bytes(colours) + _OTHER_BYTES

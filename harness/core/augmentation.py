"""Augmentations: a symmetry, a colour permutation and an order of the train pairs, exactly invertible."""

from __future__ import annotations

from dataclasses import dataclass

from harness.core.grid import COLOURS, Grid, Pair, Task
from harness.core.random_stream import Stream
from harness.core.symmetry import SYMMETRIES, apply_symmetry, inverse_symmetry

ALL_COLOURS_PROBABILITY = 0.1
"""How often colour 0 takes part in a colour permutation; else it stays, being the background of most tasks."""
_OTHER_BYTES = bytes(range(COLOURS, 256))


@dataclass(frozen=True, slots=True)
class Augmentation:
    """A view of a task. ``invert`` undoes ``apply`` on every grid a model may answer, whatever its shape."""

    symmetry: str
    colours: tuple[int, ...]
    """``colours[c]`` is what colour c becomes; a permutation of 0-9."""
    order: tuple[int, ...]
    """Position k of the view shows train pair ``order[k]``."""

    def apply(self, grid: Grid) -> Grid:
        """The grid as the model sees it."""
        turned = apply_symmetry(self.symmetry, grid)
        return Grid(turned.height, turned.width, turned.cells.translate(_table(self.colours)))

    def invert(self, grid: Grid) -> Grid:
        """A grid that the model answered, back in the original orientation and colours."""
        back = bytearray(COLOURS)
        for old, new in enumerate(self.colours):
            back[new] = old
        plain = Grid(grid.height, grid.width, grid.cells.translate(_table(tuple(back))))
        return apply_symmetry(inverse_symmetry(self.symmetry), plain)

    def apply_task(self, task: Task) -> Task:
        """The whole task under this view; the id and the order of the test pairs stay."""
        return Task(task.id, tuple(self._pair(task.train[i]) for i in self.order), tuple(map(self._pair, task.test)))

    def _pair(self, pair: Pair) -> Pair:
        return Pair(self.apply(pair.input), None if pair.output is None else self.apply(pair.output))


def identity_view(n_train: int) -> Augmentation:
    """The view that changes nothing, for a task of ``n_train`` train pairs."""
    return Augmentation("identity", tuple(range(COLOURS)), tuple(range(n_train)))


def random_colours(stream: Stream) -> tuple[int, ...]:
    """A random colour permutation: 0 stays with probability 0.9, the others always move freely."""
    if stream.uniform() < ALL_COLOURS_PROBABILITY:
        return stream.permutation(COLOURS)
    return (0, *(c + 1 for c in stream.permutation(COLOURS - 1)))


def random_view(stream: Stream, n_train: int) -> Augmentation:
    """A fresh random view for one training sample."""
    return Augmentation(stream.choice(SYMMETRIES), random_colours(stream), stream.permutation(n_train))


def sampling_view(seed: int, task_id: str, view: int, n_train: int) -> Augmentation:
    """View number ``view`` of a task in a run: the symmetries in turn, each with its own colours and pair order.

    A pure function of (seed, task id, view), so that every model of a run meets the same views.
    """
    stream = Stream("view", seed, task_id, view)
    return Augmentation(SYMMETRIES[view % len(SYMMETRIES)], random_colours(stream), stream.permutation(n_train))


def resplit(stream: Stream, task: Task) -> Task:
    """For training: all pairs pooled and split anew into as many train and test pairs as before.

    A task with a test pair of unknown output stays as it is.
    """
    pairs = task.train + task.test
    if any(pair.output is None for pair in pairs):
        return task
    drawn = stream.sample(pairs, len(pairs))
    return Task(task.id, drawn[: len(task.train)], drawn[len(task.train) :])


def _table(colours: tuple[int, ...]) -> bytes:
    return bytes(colours) + _OTHER_BYTES

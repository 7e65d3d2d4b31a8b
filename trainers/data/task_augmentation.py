"""Create new training tasks by changing all inputs or all outputs of a task.

These changes have no inverse, so that they are never used where predictions are mapped back to the original task.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from harness.core.augmentation import resplit
from harness.core.grid import COLOURS, MAX_SIDE, Grid, Pair, Task
from harness.core.random_stream import Stream
from harness.core.symmetry import SYMMETRIES, apply_symmetry

Kind = Literal["geometric", "padding", "upscale", "mirror"]
KINDS: tuple[Kind, ...] = ("geometric", "padding", "upscale", "mirror")
EQUAL_WEIGHTS: Mapping[Kind, float] = dict.fromkeys(KINDS, 1.0)
"""Every kind with weight 1."""
PADDING = range(1, 6)
"""Rows or columns that padding adds on each side."""
UPSCALE = range(2, 5)
"""Factors by which upscaling repeats rows or columns."""


@dataclass(frozen=True, slots=True)
class ProblemChange:
    """One change, applied to the inputs or to the outputs of all pairs."""

    side: Literal["input", "output"]
    kind: Kind
    symmetry: str = "identity"
    """For ``geometric``, the symmetry; for ``mirror``, the reflection that gives the second half."""
    rows: int = 0
    """For ``padding``, rows added above and below; for ``upscale``, the factor of repetition."""
    columns: int = 0
    """The same for columns."""
    colour: int = 0
    """For ``padding``."""
    first: bool = True
    """For ``mirror``: whether the grid precedes its mirror image."""

    def apply(self, grid: Grid) -> Grid:
        """Return the changed grid."""
        if self.kind == "geometric":
            return apply_symmetry(self.symmetry, grid)
        if self.kind == "padding":
            side = bytes((self.colour,)) * self.columns
            band = [bytes((self.colour,)) * (grid.width + 2 * self.columns)] * self.rows
            return Grid.from_byte_rows([*band, *(side + row + side for row in grid.rows()), *band])
        if self.kind == "upscale":
            wide = (bytes(c for c in row for _ in range(self.columns)) for row in grid.rows())
            return Grid.from_byte_rows([row for row in wide for _ in range(self.rows)])
        image = apply_symmetry(self.symmetry, grid)
        one, two = (grid, image) if self.first else (image, grid)
        if self.symmetry == "flip_ud":
            return Grid.from_byte_rows(one.rows() + two.rows())
        return Grid.from_byte_rows([left + right for left, right in zip(one.rows(), two.rows(), strict=True)])

    def apply_task(self, task: Task) -> Task:
        """Return the new task under the old id."""
        return Task(task.id, tuple(map(self._pair, task.train)), tuple(map(self._pair, task.test)))

    def _pair(self, pair: Pair) -> Pair:
        if self.side == "input":
            return Pair(self.apply(pair.input), pair.output)
        return Pair(pair.input, None if pair.output is None else self.apply(pair.output))


@dataclass(frozen=True)
class TaskChanges:
    """How a dataset's tasks are turned into further tasks for training; by default they are left unchanged."""

    resplit: bool = False
    """Split the pairs again into train and test."""
    probability: float = 0.0
    """Probability of a problem change."""
    weights: Mapping[Kind, float] = field(default_factory=lambda: EQUAL_WEIGHTS)
    """Relative weight of each kind of problem change."""

    def split(self, stream: Stream, task: Task) -> Task:
        """Return the task with its pairs split again; the same object if ``resplit`` is off or an output is unknown."""
        return resplit(stream, task) if self.resplit else task

    def change(self, stream: Stream, task: Task) -> Task:
        """Return the task after a problem change if one is drawn and fits, else the same object."""
        if not self.probability or stream.uniform() >= self.probability:
            return task
        change = random_change(stream, task, self.weights)
        return task if change is None else change.apply_task(task)


NO_CHANGES = TaskChanges()
"""Tasks stay as they are."""


def random_change(stream: Stream, task: Task, weights: Mapping[Kind, float] = EQUAL_WEIGHTS) -> ProblemChange | None:
    """Draw a change of all inputs or all outputs that keeps every grid within 30x30; None if no kind does.

    The kind is drawn first, by weight among the kinds that fit, then its parameters uniformly among those that fit.

    Args:
        weights: relative weight of each kind; a kind that is absent or weighs 0 is never drawn.
    """
    side: Literal["input", "output"] = stream.choice(("input", "output"))
    grids = [pair.input if side == "input" else pair.output for pair in task.train + task.test]
    height = max(grid.height for grid in grids if grid is not None)
    width = max(grid.width for grid in grids if grid is not None)
    wanted = [kind for kind in KINDS if weights.get(kind, 0) > 0]
    fitting = {kind: changes for kind in wanted if (changes := list(_fitting(side, kind, height, width)))}
    if not fitting:
        return None
    change = stream.choice(fitting[_weighted(stream, {kind: weights[kind] for kind in fitting})])
    if change.kind == "padding":
        return ProblemChange(side, "padding", rows=change.rows, columns=change.columns, colour=stream.below(COLOURS))
    return change


def _weighted(stream: Stream, weights: Mapping[Kind, float]) -> Kind:
    """Draw a kind with probability proportional to its weight."""
    point = stream.uniform() * sum(weights.values())
    *firsts, last = weights
    for kind in firsts:
        point -= weights[kind]
        if point < 0:
            return kind
    return last


def _fitting(side: Literal["input", "output"], kind: Kind, height: int, width: int) -> Iterator[ProblemChange]:
    """Yield the changes of one kind that fit; ``height`` and ``width`` are the maxima over the grids to change."""
    if kind == "geometric":
        yield from (ProblemChange(side, kind, symmetry=name) for name in SYMMETRIES if name != "identity")
    elif kind == "mirror":
        for name, tall, wide in (("flip_lr", height, 2 * width), ("flip_ud", 2 * height, width)):
            if max(tall, wide) <= MAX_SIDE:
                yield from (ProblemChange(side, kind, symmetry=name, first=first) for first in (True, False))
    else:
        steps = PADDING if kind == "padding" else UPSCALE
        for rows in steps:
            for columns in steps:
                tall, wide = (
                    (height + 2 * rows, width + 2 * columns) if kind == "padding" else (height * rows, width * columns)
                )
                if max(tall, wide) <= MAX_SIDE:
                    yield ProblemChange(side, kind, rows=rows, columns=columns)

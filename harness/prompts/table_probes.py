"""Tasks on which a table of token ids must agree with the tokenizer before it is used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

from harness.core.grid import COLOURS, MAX_SIDE, Grid, Pair, Task
from harness.core.random_stream import Stream

_RANDOM = 8
"""Random tasks, with 1 to this many train pairs."""
_PAIRS = 5
"""Pairs of each further task."""


@cache
def probe_tasks() -> tuple[Task, ...]:
    """Random tasks, one of each number of train pairs, and tasks that show what chance seldom does.

    The latter have rows of every length with one colour, which tokenizers are likely to have tokens for, and all
    sequences of three colours.
    """
    grids = [*_one_colour(), *_all_triples()]
    grids += [grids[0]] * (-len(grids) % (2 * _PAIRS))
    further = [_task(grids[i : i + 2 * _PAIRS]) for i in range(0, len(grids), 2 * _PAIRS)]
    return (*(random_task(n) for n in range(1, _RANDOM + 1)), *further)


@cache
def random_task(n_train: int) -> Task:
    """A task of random grids of any shape, with ``n_train`` train pairs (at least one); always the same."""
    stream = Stream("tokens", n_train)

    def grid(height: int, width: int) -> Grid:
        return Grid(height, width, bytes(stream.below(COLOURS) for _ in range(height * width)))

    sides = [(stream.between(1, MAX_SIDE), stream.between(1, 12)) for _ in range(2 * n_train)]
    shapes = [*sides, (1, 1), (MAX_SIDE, MAX_SIDE), (1, MAX_SIDE), (MAX_SIDE, 1)][-2 * n_train - 2 :]
    return _task([grid(*shape) for shape in shapes])


def _task(grids: Sequence[Grid]) -> Task:
    pairs = [Pair(source, target) for source, target in zip(grids[::2], grids[1::2], strict=True)]
    return Task("probe", tuple(pairs[:-1]), (pairs[-1],))


def _one_colour() -> Iterator[Grid]:
    """By width, a grid with a row of each colour."""
    for width in range(1, MAX_SIDE + 1):
        yield Grid(COLOURS, width, b"".join(bytes((colour,)) * width for colour in range(COLOURS)))


def _all_triples() -> Iterator[Grid]:
    """All sequences of three colours, once at the start of a row and once behind one and two other cells."""
    triples = [(a, b, c) for a in range(COLOURS) for b in range(COLOURS) for c in range(COLOURS)]
    for before in range(3):
        width = 27 + before
        for start in range(0, len(triples), 9 * MAX_SIDE):
            chosen = triples[start : start + 9 * MAX_SIDE]
            rows = [bytes(before) + bytes(sum(chosen[i : i + 9], ())) for i in range(0, len(chosen), 9)]
            rows = [row.ljust(width, b"\0") for row in rows]
            yield Grid(len(rows), width, b"".join(rows))

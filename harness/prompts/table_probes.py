"""The fastest table of token ids that agrees with a tokenizer, and the tasks on which it must agree."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import product
from operator import eq

from harness.core.grid import COLOURS, MAX_SIDE, Grid, Task
from harness.core.random_stream import Stream
from harness.prompts.grid_text import GridEncoder
from harness.prompts.table_tokenizer import SlottedText, TableTokenizer, task_from_grids

_TABLES = {"cells": 1, "triples": 3, "pairs": 2, "rows": 0}
"""Number of cells looked up at a time, by table name, fastest table first; 0 stands for whole rows."""
_RANDOM = 8
"""Number of random tasks; they have 1, 2, … train pairs."""
_PAIRS = 5
"""Number of pairs in each systematic task."""


def fastest_table(
    encode: Callable[[str], list[int]],
    encoder: GridEncoder,
    slotted_texts: Callable[[int], tuple[SlottedText, SlottedText]],
    expected: Sequence[list[list[int]]],
) -> tuple[str, TableTokenizer | None]:
    """Return the name of the fastest table whose ids are the expected ones, and the table; ``tokenizer`` without one.

    Args:
        encode: returns the token ids of a text.
        slotted_texts: returns prompt and answer of tasks with a number of train pairs, with slots in place of grids.
        expected: the ids of prompt and answer of each of ``probe_tasks``.
    """
    tasks = probe_tasks()
    for (method, cells), cut in product(_TABLES.items(), (True, False)):
        table = TableTokenizer(encode, encoder, slotted_texts, cut=cut, cells=cells)
        ids = ([table.prompt_ids(task, 0), table.answer_ids(task, 0)] for task in tasks)
        if all(map(eq, ids, expected)):
            return method, table
    return "tokenizer", None


@cache
def probe_tasks() -> tuple[Task, ...]:
    """Return the probes: random tasks with different numbers of train pairs, and systematic ones.

    The systematic tasks contain single-colour rows of every width, for which a tokenizer can have a token of its own,
    and all sequences of three colours.
    """
    grids = [*_one_colour(), *_all_triples()]
    grids += [grids[0]] * (-len(grids) % (2 * _PAIRS))
    systematic = [task_from_grids(grids[i : i + 2 * _PAIRS]) for i in range(0, len(grids), 2 * _PAIRS)]
    return (*(random_task(n) for n in range(1, _RANDOM + 1)), *systematic)


@cache
def random_task(n_train: int) -> Task:
    """Return a task of random grids with ``n_train`` train pairs (1 or more), among them extreme shapes.

    It depends on ``n_train`` only.
    """
    stream = Stream("tokens", n_train)

    def grid(height: int, width: int) -> Grid:
        return Grid(height, width, bytes(stream.below(COLOURS) for _ in range(height * width)))

    sides = [(stream.between(1, MAX_SIDE), stream.between(1, 12)) for _ in range(2 * n_train)]
    shapes = [*sides, (1, 1), (MAX_SIDE, MAX_SIDE), (1, MAX_SIDE), (MAX_SIDE, 1)][-2 * n_train - 2 :]
    return task_from_grids([grid(*shape) for shape in shapes])


def _one_colour() -> Iterator[Grid]:
    """Yield for each width a grid with a single-colour row of each colour."""
    for width in range(1, MAX_SIDE + 1):
        yield Grid(COLOURS, width, b"".join(bytes((colour,)) * width for colour in range(COLOURS)))


def _all_triples() -> Iterator[Grid]:
    """Yield grids that contain every sequence of three colours at the start of a row, and after one and two cells."""
    triples = [(a, b, c) for a in range(COLOURS) for b in range(COLOURS) for c in range(COLOURS)]
    for offset in range(3):
        width = 27 + offset
        for start in range(0, len(triples), 9 * MAX_SIDE):
            chosen = triples[start : start + 9 * MAX_SIDE]
            rows = [bytes(offset) + bytes(sum(chosen[i : i + 9], ())) for i in range(0, len(chosen), 9)]
            rows = [row.ljust(width, b"\0") for row in rows]
            yield Grid(len(rows), width, b"".join(rows))

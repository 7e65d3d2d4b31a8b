"""Token ids by table: a prompt put together from the cached ids of its fixed text and of the rows of its grids.

A tokenizer works through every character; here the fixed text between two grids is looked up, and a row becomes ids
through a table of cells, or of two or three cells where the tokenizer makes one token of as many digits (Llama 3).
That is only right where the tokenizer never merges across the cuts (before a row, before the line break that ends it,
and for the table between cells or groups of them), so that the caller must compare with the tokenizer first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import chain, product

from harness.core.grid import COLOURS, MAX_SIDE, Grid, Pair, Task
from harness.prompts.grid_encoder import GridEncoder, GridWriter

Encode = Callable[[str], list[int]]
_SLOT = re.compile("\ue000([0-9]+)\ue001")
MAX_CACHED = 200_000
"""Entries of a cache before it is emptied."""


class SlotWriter:
    """Stands in for a grid encoder: a slot_task's grids become numbered slot_grids in the text."""

    def encode(self, grid: Grid) -> str:
        return f"\ue000{grid.width}\ue001"


def slot_task(n_train: int) -> Task:
    """A task whose grids are numbered by their width: inputs and outputs of the train pairs, then of the test."""
    grids = [Grid(1, k, bytes(k)) for k in range(1, 2 * n_train + 3)]
    pairs = [Pair(source, target) for source, target in zip(grids[::2], grids[1::2], strict=True)]
    return Task("slot_task", tuple(pairs[:-1]), (pairs[-1],))


def slot_grids(task: Task, test_index: int) -> list[Grid | None]:
    """The grids of a task in the order of the slot_task's numbers."""
    pairs = (*task.train, task.test[test_index])
    return [grid for pair in pairs for grid in (pair.input, pair.output)]


class SlottedText:
    """A text with slot_grids: fixed pieces and, between them, the numbers of the grids."""

    def __init__(self, text: str) -> None:
        parts = _SLOT.split(text)
        self.fixed: list[str] = parts[::2]
        self.grids: list[int] = [int(number) - 1 for number in parts[1::2]]

    def fill(self, grids: Sequence[Grid | None], encoder: GridWriter) -> str:
        """The text with the grids in place of the slot_grids; the grids that it shows must be known."""
        text = [self.fixed[0]]
        for place, fixed in zip(self.grids, self.fixed[1:], strict=True):
            grid = grids[place]
            assert grid is not None  # a prompt shows no unknown output
            text += [encoder.encode(grid), fixed]
        return "".join(text)


class RowTable:
    """The ids of rows.

    Args:
        cells: how many cells from the left are looked up at a time: 1, or as many as the tokenizer has digits in a
            token; 0 for whole rows, which are tokenized and kept.
    """

    def __init__(self, encode: Encode, encoder: GridEncoder, *, cells: int) -> None:
        self._encode, self._encoder, self._cells = encode, encoder, cells
        self._rows: dict[tuple[int, bytes], list[int]] = {}
        self._cut = re.compile(b".{1,%d}" % max(1, cells), re.DOTALL).findall
        zeros = bytes(max(1, cells))
        before = len(encode(encoder.line(1, zeros)))
        self._break = encode(encoder.line(1, zeros) + "\n")[before:]
        groups = [bytes(group) for n in range(1, cells + 1) for group in product(range(COLOURS), repeat=n)]
        self._groups = {group: encode(encoder.line(1, zeros + group))[before:] for group in groups}
        """By cells, their ids behind others."""
        alone = all(len(ids) == 1 for ids in self._groups.values())
        self._tokens = {group: ids[0] for group, ids in self._groups.items()} if alone else {}
        self._single = list(self._tokens.values()) if cells == 1 else []
        # Where cells are single, the first of a row has a table for each row's number; else there is its start alone.
        numbers = range(1, MAX_SIDE + 1)
        self._first = [{group: self._line(i, group) for group in groups} for i in numbers] if cells == 1 else []
        self._start = [self._line(i, b"") for i in numbers] if cells > 1 else []

    def add(self, ids: list[int], grid: Grid) -> None:
        """Append the ids of a grid's rows, the last one without its line break."""
        after, single, groups = self._break, self._single, self._groups
        if self._cells > 1:
            for start, row in zip(self._start, grid.rows(), strict=False):
                ids += start
                if self._tokens:
                    ids += map(self._tokens.__getitem__, self._cut(row))
                else:
                    ids += chain.from_iterable(map(groups.__getitem__, self._cut(row)))
                ids += after
        elif single:
            for first, row in zip(self._first, grid.rows(), strict=False):
                ids += first[row[:1]]
                ids += map(single.__getitem__, row[1:])
                ids += after
        elif self._cells:
            for first, row in zip(self._first, grid.rows(), strict=False):
                ids += first[row[:1]]
                ids += chain.from_iterable(map(groups.__getitem__, self._cut(row[1:])))
                ids += after
        else:
            for number, row in enumerate(grid.rows(), 1):
                ids += self._row(number, row)
                ids += after
        del ids[len(ids) - len(after) :]

    def _line(self, number: int, row: bytes) -> list[int]:
        return self._encode(self._encoder.line(number, row))

    def _row(self, number: int, row: bytes) -> list[int]:
        key = (number, row)
        ids = self._rows.get(key)
        if ids is None:
            if len(self._rows) >= MAX_CACHED:
                self._rows.clear()
            ids = self._rows[key] = self._line(number, row)
        return ids


class TableTokenizer:
    """Builds ids from layouts and grids.

    Args:
        layouts: gives for a number of train pairs the layouts of the prompt and of the answer.
        cut: also cut before the head of a grid, which then is looked up by its shape alone.
        cells: see ``RowTable``.
    """

    def __init__(
        self,
        encode: Encode,
        encoder: GridEncoder,
        layouts: Callable[[int], tuple[SlottedText, SlottedText]],
        *,
        cut: bool,
        cells: int,
    ) -> None:
        self._encode, self._encoder, self._layouts, self._cut = encode, encoder, layouts, cut
        self._known: dict[int, tuple[SlottedText, SlottedText]] = {}
        self._texts: dict[str, list[int]] = {}
        self._table = RowTable(encode, encoder, cells=cells)

    def prompt_ids(self, task: Task, test_index: int) -> list[int]:
        """The ids of the prompt."""
        return self._join(self._of(task)[0], slot_grids(task, test_index))

    def answer_ids(self, task: Task, test_index: int) -> list[int]:
        """The ids of the answer with its end of turn; its output must be known."""
        return self._join(self._of(task)[1], slot_grids(task, test_index))

    def _of(self, task: Task) -> tuple[SlottedText, SlottedText]:
        n = len(task.train)
        if n not in self._known:
            self._known[n] = self._layouts(n)
        return self._known[n]

    def _join(self, layout: SlottedText, grids: Sequence[Grid | None]) -> list[int]:
        encoder, texts = self._encoder, self._texts
        ids: list[int] = []
        tail = ""
        for text, place in zip(layout.fixed, layout.grids, strict=False):
            grid = grids[place]
            assert grid is not None  # asked for by the caller before
            head = encoder.head(grid.height, grid.width)
            for key in (tail + text, head) if self._cut else (tail + text + head,):
                fixed = texts.get(key)
                ids += self._text(key) if fixed is None else fixed
            self._table.add(ids, grid)
            tail = encoder.tail(grid.height, grid.width)
        return ids + self._text(tail + layout.fixed[-1])

    def _text(self, key: str) -> list[int]:
        if key not in self._texts:
            if len(self._texts) >= MAX_CACHED:
                self._texts.clear()
            self._texts[key] = self._encode(key)
        return self._texts[key]

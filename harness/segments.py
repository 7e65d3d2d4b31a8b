"""Token ids by table: a prompt put together from the cached ids of its fixed text and of the rows of its grids.

A tokenizer works through every character; here the fixed text between two grids is looked up, and a row becomes ids
cell by cell through a table. That is only right where the tokenizer never merges across the cuts (before a row, before
the line break that ends it, and for the table between cells), so that the caller must compare with the tokenizer first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from harness.encoding import Encoder, GridText
from harness.grid import MAX_SIDE, Grid, Pair, Task

Encode = Callable[[str], list[int]]
_SLOT = re.compile("\ue000([0-9]+)\ue001")
MAX_CACHED = 200_000
"""Entries of a cache before it is emptied."""


class SlotEncoder:
    """Stands in for a grid encoder: a skeleton's grids become numbered slots in the text."""

    def encode(self, grid: Grid) -> str:
        return f"\ue000{grid.width}\ue001"


def skeleton(n_train: int) -> Task:
    """A task whose grids are numbered by their width: inputs and outputs of the train pairs, then of the test."""
    grids = [Grid(1, k, bytes(k)) for k in range(1, 2 * n_train + 3)]
    pairs = [Pair(source, target) for source, target in zip(grids[::2], grids[1::2], strict=True)]
    return Task("skeleton", tuple(pairs[:-1]), (pairs[-1],))


def slots(task: Task, test_index: int) -> list[Grid | None]:
    """The grids of a task in the order of the skeleton's numbers."""
    pairs = (*task.train, task.test[test_index])
    return [grid for pair in pairs for grid in (pair.input, pair.output)]


class Layout:
    """A text with slots: fixed pieces and, between them, the numbers of the grids."""

    def __init__(self, text: str) -> None:
        parts = _SLOT.split(text)
        self.fixed: list[str] = parts[::2]
        self.grids: list[int] = [int(number) - 1 for number in parts[1::2]]

    def fill(self, grids: Sequence[Grid | None], encoder: GridText) -> str:
        """The text with the grids in place of the slots; the grids that it shows must be known."""
        text = [self.fixed[0]]
        for place, fixed in zip(self.grids, self.fixed[1:], strict=True):
            grid = grids[place]
            assert grid is not None  # a prompt shows no unknown output
            text += [encoder.encode(grid), fixed]
        return "".join(text)


class RowTable:
    """The ids of rows.

    Args:
        by_cell: look cells up one by one; else whole rows are tokenised and kept.
    """

    def __init__(self, encode: Encode, encoder: Encoder, *, by_cell: bool) -> None:
        self._encode, self._encoder, self._by_cell = encode, encoder, by_cell
        self._rows: dict[tuple[int, bytes], list[int]] = {}
        first = encode(encoder.line(1, b"\0"))
        self._break = encode(encoder.line(1, b"\0") + "\n")[len(first) :]
        if by_cell:
            self._first = [[encode(encoder.line(i, bytes((c,)))) for c in range(10)] for i in range(1, MAX_SIDE + 1)]
            self._next = [encode(encoder.line(1, bytes((0, c))))[len(first) :] for c in range(10)]
            self._single = [ids[0] for ids in self._next] if all(len(ids) == 1 for ids in self._next) else None

    def add(self, ids: list[int], grid: Grid) -> None:
        """Append the ids of a grid's rows, the last one without its line break."""
        if self._by_cell and self._single is not None:
            single, after = self._single, self._break
            for first, row in zip(self._first, grid.rows(), strict=False):
                ids += first[row[0]]
                ids += [single[c] for c in row[1:]]
                ids += after
        else:
            for number, row in enumerate(grid.rows()):
                ids += self._cells(number, row) if self._by_cell else self._row(number, row)
                ids += self._break
        del ids[len(ids) - len(self._break) :]

    def _cells(self, number: int, row: bytes) -> list[int]:
        ids = list(self._first[number][row[0]])
        for c in row[1:]:
            ids += self._next[c]
        return ids

    def _row(self, number: int, row: bytes) -> list[int]:
        key = (number, row)
        ids = self._rows.get(key)
        if ids is None:
            if len(self._rows) >= MAX_CACHED:
                self._rows.clear()
            ids = self._rows[key] = self._encode(self._encoder.line(number + 1, row))
        return ids


class SegmentTokenizer:
    """Builds ids from layouts and grids.

    Args:
        layouts: gives for a number of train pairs the layouts of the prompt and of the answer.
        cut: also cut before the head of a grid, which then is looked up by its shape alone.
        by_cell: see ``RowTable``.
    """

    def __init__(
        self,
        encode: Encode,
        encoder: Encoder,
        layouts: Callable[[int], tuple[Layout, Layout]],
        *,
        cut: bool,
        by_cell: bool,
    ) -> None:
        self._encode, self._encoder, self._layouts, self._cut = encode, encoder, layouts, cut
        self._known: dict[int, tuple[Layout, Layout]] = {}
        self._texts: dict[str, list[int]] = {}
        self._table = RowTable(encode, encoder, by_cell=by_cell)

    def prompt_ids(self, task: Task, test_index: int) -> list[int]:
        """The ids of the prompt."""
        return self._join(self._of(task)[0], slots(task, test_index))

    def answer_ids(self, task: Task, test_index: int) -> list[int]:
        """The ids of the answer with its end of turn; its output must be known."""
        return self._join(self._of(task)[1], slots(task, test_index))

    def _of(self, task: Task) -> tuple[Layout, Layout]:
        n = len(task.train)
        if n not in self._known:
            self._known[n] = self._layouts(n)
        return self._known[n]

    def _join(self, layout: Layout, grids: Sequence[Grid | None]) -> list[int]:
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

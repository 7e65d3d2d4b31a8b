"""Builds a prompt's token ids from cached ids of its fixed text and of its grids' rows.

A tokenizer works through every character. Here, the ids of the text between two grids are looked up, and those of a row
come from a table of cells, or of pairs or triples of cells for tokenizers with tokens of several digits (Llama 3).

The result equals the tokenizer's only if no token spans a cut. The text is cut before each row, before the line break
at its end, and between the table's groups of cells. The caller must therefore compare a table with the tokenizer first.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import chain, product

from harness.core.grid import COLOURS, MAX_SIDE, Grid, Pair, Task
from harness.prompts.grid_text import GridEncoder, GridWriter
from harness.prompts.token_ranges import Decode, TokenRange, count_leading, count_trailing

Encode = Callable[[str], list[int]]
_SLOT = re.compile("\ue000([0-9]+)\ue001")
MAX_CACHED = 200_000
"""Number of entries at which a cache is emptied."""


class SlotWriter:
    """Takes the place of a grid encoder, and writes each grid of ``slot_task`` as the mark of its slot."""

    def encode(self, grid: Grid) -> str:
        return f"\ue000{grid.width}\ue001"


def slot_task(n_train: int) -> Task:
    """Return a placeholder task: its grid for slot k, in the order of ``slot_grids``, is one row of k cells."""
    return task_from_grids([Grid(1, k, bytes(k)) for k in range(1, 2 * n_train + 3)])


def task_from_grids(grids: Sequence[Grid]) -> Task:
    """Return a task of these grids: input, output, input, …; the last pair is the test pair."""
    pairs = [Pair(source, target) for source, target in zip(grids[::2], grids[1::2], strict=True)]
    return Task("probe", tuple(pairs[:-1]), (pairs[-1],))


def slot_grids(task: Task, test_index: int) -> list[Grid | None]:
    """Return the grids for slots 1, 2, …: input and output of each train pair, then of the test pair."""
    pairs = (*task.train, task.test[test_index])
    return [grid for pair in pairs for grid in (pair.input, pair.output)]


class SlottedText:
    """A text with slots for grids.

    Attributes:
        fixed: the pieces of text around the slots, one more than there are slots.
        grids: for each slot, the index of its grid in ``slot_grids``.
    """

    def __init__(self, text: str) -> None:
        parts = _SLOT.split(text)
        self.fixed: list[str] = parts[::2]
        self.grids: list[int] = [int(number) - 1 for number in parts[1::2]]

    def fill_slots(self, grids: Sequence[Grid | None], encoder: GridWriter) -> str:
        """Return the text with grids in its slots. A grid that the text shows must not be None."""
        text = [self.fixed[0]]
        for index, fixed in zip(self.grids, self.fixed[1:], strict=True):
            grid = grids[index]
            assert grid is not None  # prompts do not show unknown outputs
            text += [encoder.encode(grid), fixed]
        return "".join(text)

    def locate_slots(self, grids: Sequence[Grid | None], encoder: GridWriter) -> list[tuple[int, int]]:
        """Return the (start, end) in characters of each slot's grid in ``fill_slots``."""
        places, end = [], 0
        for index, fixed in zip(self.grids, self.fixed, strict=False):
            grid = grids[index]
            assert grid is not None
            start = end + len(fixed)
            end = start + len(encoder.encode(grid))
            places.append((start, end))
        return places


class RowTable:
    """Token ids of grid rows.

    Args:
        cells: number of cells looked up at a time, from the left: 1, 2 or 3, as many digits as the tokenizer has in a
            token. 0 tokenizes whole rows and caches them.
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
        """The ids of a group of cells that follows other cells."""
        one_token = all(len(ids) == 1 for ids in self._groups.values())
        self._tokens = {group: ids[0] for group, ids in self._groups.items()} if one_token else {}
        self._single = list(self._tokens.values()) if cells == 1 else []
        # Some encoders begin a row with its number. With single cells, there is a table of the first cell for each row
        # number; with groups, the ids of the number alone.
        numbers = range(1, MAX_SIDE + 1)
        self._first = [{group: self._line_ids(i, group) for group in groups} for i in numbers] if cells == 1 else []
        self._start = [self._line_ids(i, b"") for i in numbers] if cells > 1 else []

    def append_rows(self, ids: list[int], grid: Grid) -> None:
        """Append the ids of a grid's rows to ``ids``, the last row without its line break."""
        line_break, single, groups = self._break, self._single, self._groups
        if self._cells > 1:
            for start, row in zip(self._start, grid.rows(), strict=False):
                ids += start
                if self._tokens:
                    ids += map(self._tokens.__getitem__, self._cut(row))
                else:
                    ids += chain.from_iterable(map(groups.__getitem__, self._cut(row)))
                ids += line_break
        elif single:
            for first, row in zip(self._first, grid.rows(), strict=False):
                ids += first[row[:1]]
                ids += map(single.__getitem__, row[1:])
                ids += line_break
        elif self._cells:
            for first, row in zip(self._first, grid.rows(), strict=False):
                ids += first[row[:1]]
                ids += chain.from_iterable(map(groups.__getitem__, self._cut(row[1:])))
                ids += line_break
        else:
            for number, row in enumerate(grid.rows(), 1):
                ids += self._cached_line_ids(number, row)
                ids += line_break
        del ids[len(ids) - len(line_break) :]

    def _line_ids(self, number: int, row: bytes) -> list[int]:
        """Tokenize a row."""
        return self._encode(self._encoder.line(number, row))

    def _cached_line_ids(self, number: int, row: bytes) -> list[int]:
        """Return the ids of a row, from the cache if it has them."""
        key = (number, row)
        ids = self._rows.get(key)
        if ids is None:
            if len(self._rows) >= MAX_CACHED:
                self._rows.clear()
            ids = self._rows[key] = self._line_ids(number, row)
        return ids


class TableTokenizer:
    """Builds the token ids of prompts and answers from slotted texts and grids.

    Args:
        slotted_texts: returns prompt and answer as slotted texts, given the number of train pairs.
        cut: also cut the text before the head of a grid, so that fixed text and head are looked up separately.
        cells: see ``RowTable``.
    """

    def __init__(
        self,
        encode: Encode,
        encoder: GridEncoder,
        slotted_texts: Callable[[int], tuple[SlottedText, SlottedText]],
        *,
        cut: bool,
        cells: int,
    ) -> None:
        self._encode, self._encoder, self._slotted_texts, self._cut = encode, encoder, slotted_texts, cut
        self._by_n_train: dict[int, tuple[SlottedText, SlottedText]] = {}
        self._ids: dict[str, list[int]] = {}
        self._overlaps: dict[tuple[str, int], int] = {}
        self._table = RowTable(encode, encoder, cells=cells)

    def prompt_ids(self, task: Task, test_index: int) -> list[int]:
        """Return the ids of the prompt."""
        return self._join_ids(self._prompt_and_answer(task)[0], slot_grids(task, test_index))

    def prompt_ranges(self, task: Task, test_index: int, decode: Decode) -> dict[int, TokenRange]:
        """Return which ids of the prompt write each grid that it shows, by the grid's index in ``slot_grids``."""
        text, grids = self._prompt_and_answer(task)[0], slot_grids(task, test_index)
        starts, ends = [], []
        length, tail = 0, ""
        for fixed, index in zip(text.fixed, text.grids, strict=False):
            grid = grids[index]
            assert grid is not None
            head = self._encoder.head(grid.height, grid.width)
            first, *rest = (tail + fixed, head) if self._cut else (tail + fixed + head,)
            ends.append(length + self._overlap(decode, first, len(tail)))
            length += sum(len(self._text_ids(key)) for key in (first, *rest))
            starts.append(length - self._overlap(decode, [first, *rest][-1], -len(head)))
            rows: list[int] = []
            self._table.append_rows(rows, grid)
            length, tail = length + len(rows), self._encoder.tail(grid.height, grid.width)
        ends.append(length + self._overlap(decode, tail + text.fixed[-1], len(tail)))
        return dict(zip(text.grids, zip(starts, ends[1:], strict=True), strict=True))

    def answer_ids(self, task: Task, test_index: int) -> list[int]:
        """Return the ids of the answer and its end of turn. The output must be known."""
        return self._join_ids(self._prompt_and_answer(task)[1], slot_grids(task, test_index))

    def _prompt_and_answer(self, task: Task) -> tuple[SlottedText, SlottedText]:
        n = len(task.train)
        if n not in self._by_n_train:
            self._by_n_train[n] = self._slotted_texts(n)
        return self._by_n_train[n]

    def _join_ids(self, text: SlottedText, grids: Sequence[Grid | None]) -> list[int]:
        """Return the ids of a text with grids in its slots. A grid's tail is looked up with the fixed text after it."""
        encoder, cached = self._encoder, self._ids
        ids: list[int] = []
        tail = ""
        for fixed, index in zip(text.fixed, text.grids, strict=False):
            grid = grids[index]
            assert grid is not None  # the caller has checked the answer; prompts do not show unknown outputs
            head = encoder.head(grid.height, grid.width)
            for key in (tail + fixed, head) if self._cut else (tail + fixed + head,):
                known = cached.get(key)
                ids += self._text_ids(key) if known is None else known
            self._table.append_rows(ids, grid)
            tail = encoder.tail(grid.height, grid.width)
        return ids + self._text_ids(tail + text.fixed[-1])

    def _overlap(self, decode: Decode, text: str, length: int) -> int:
        """Return how many tokens of a text overlap its first characters, or its last ones if ``length`` is negative."""
        known = self._overlaps.get((text, length))
        if known is None:
            count = count_leading if length > 0 else count_trailing
            known = self._overlaps[text, length] = count(decode, self._text_ids(text), abs(length)) if length else 0
        return known

    def _text_ids(self, text: str) -> list[int]:
        """Return the ids of a piece of text, from the cache if it has them."""
        if text not in self._ids:
            if len(self._ids) >= MAX_CACHED:
                self._ids.clear()
            self._ids[text] = self._encode(text)
        return self._ids[text]

"""BARC: generated tasks as JSON lines, ``{"source": str, "examples": [[input, output], ...], "seeds": [...]}``.

The four published files hold 100,000 rows each, so that rows are read on demand through a line index. What is not
fit for use is skipped and counted by its reason.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from harness.core.errors import DataError, GridError
from harness.core.files import log
from harness.core.grid import Grid, OversizeError, Pair
from harness.data.line_index import MAX_REPORTED, LineIndex
from harness.data.task_sources import MIN_PAIRS

_BOOLEAN = re.compile(rb"[\[,]\s*(?:true|false)")
"""A boolean in a list, or what looks like one in a text."""


class BadRow(DataError):
    """One row that gives no task: a bad sample, not a bad file."""


@dataclass
class BarcFile:
    """One file of rows, with what was met in it so far."""

    index: LineIndex
    name: str
    """The path as the user wrote it."""
    max_examples: int | None = None
    min_pairs: int = MIN_PAIRS
    skipped: Counter[str] = field(default_factory=Counter)
    """Skipped pairs and rows by reason, each counted once."""
    _seen: set[int] = field(default_factory=set)
    _reported: int = 0

    def __post_init__(self) -> None:
        if self.index.n_bad:
            self.skipped["row: damaged line"] = self.index.n_bad

    def row_id(self, row: int) -> str:
        """The task id of a row: the file's name without its endings, and the line."""
        stem = Path(self.name).name.removesuffix(".gz").removesuffix(".jsonl")
        return f"{stem}-{self.index.line_number(row)}"

    def pairs(self, row: int) -> tuple[Pair, ...]:
        """The usable pairs of a row, at least ``min_pairs``.

        Raises:
            BadRow: damaged, or too few usable pairs. DataError: damaged, when strict.
        """
        examples, grid = self._examples(row)
        results = [_pair(example, grid) for example in examples[: self.max_examples]]
        found = tuple(result for result in results if isinstance(result, Pair))
        reasons = [f"pair: {result}" for result in results if isinstance(result, str)]
        if len(found) < self.min_pairs:
            why = f"{len(found)} usable pairs, but {self.min_pairs} are needed"
            raise self._bad_row(row, why, [*reasons, "row: fewer usable pairs than needed"])
        self._count(row, reasons)
        return found

    def _examples(self, row: int) -> tuple[list[object], Callable[[object], Grid]]:
        """The pairs as they stand, and how their grids may be read."""
        import orjson

        text = self.index.row(row)
        try:
            data = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise self._damaged(row, f"not JSON ({error.msg} at column {error.colno})") from None
        examples = data.get("examples")
        if not isinstance(examples, list):
            raise self._damaged(row, "field 'examples': expected a list of [input, output]")
        # bytes.find is a hundred times faster than the pattern, which a row with such words in its text is left to.
        words = b"true" in text or b"false" in text
        return examples, Grid.from_rows if words and _BOOLEAN.search(text) else Grid.from_json

    def _damaged(self, row: int, why: str) -> DataError:
        error = self._bad_row(row, why, ["row: damaged line"])
        return DataError(str(error)) if self.index.strict else error

    def _bad_row(self, row: int, why: str, reasons: list[str]) -> BadRow:
        message = f"{self.name}, line {self.index.line_number(row)}: {why}"
        if self._count(row, reasons) and self._reported <= MAX_REPORTED:
            last = " (later ones are only counted)" if self._reported == MAX_REPORTED else ""
            log.warning("%s; the row is left out%s", message, last)
            self._reported += 1
        return BadRow(message)

    def _count(self, row: int, reasons: list[str]) -> bool:
        """Count what a row's first reading left out."""
        if not reasons or row in self._seen:
            return False
        self._seen.add(row)
        self.skipped.update(reasons)
        return True


def _pair(example: object, grid: Callable[[object], Grid]) -> Pair | str:
    """A pair, or the reason why it is none."""
    if not isinstance(example, list) or len(example) != 2:
        return "not [input, output]"
    try:
        return Pair(grid(example[0]), grid(example[1]))
    except OversizeError:
        return "a side over 30"
    except GridError as error:
        return "a value outside 0-9" if error.kind == "bad_value" else "ragged or empty"

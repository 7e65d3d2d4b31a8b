"""Reads rows of BARC files: JSON lines ``{"source": str, "examples": [[input, output], ...], "seeds": [...]}``.

The published files hold 100,000 rows each, so a line index finds single rows on demand. Unusable pairs and rows are
skipped and counted by reason.
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
"""Matches a boolean in a list. It may also match within a string."""


class BadRow(DataError):
    """A row from which no task can be drawn. One bad row does not make the file an error."""


@dataclass
class BarcFile:
    """One file of rows, with counts of what was skipped in it so far."""

    index: LineIndex
    name: str
    """The path as the user wrote it."""
    max_examples: int | None = None
    """Only that many examples of a row are used, from its first; None uses all."""
    min_pairs: int = MIN_PAIRS
    """The fewest usable pairs of a row."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Number of skipped pairs and rows by reason. A row that is read again is not counted again."""
    _counted_rows: set[int] = field(default_factory=set)
    _n_warnings: int = 0

    def __post_init__(self) -> None:
        if self.index.n_bad:
            self.skipped["row: damaged line"] = self.index.n_bad

    def row_id(self, row: int) -> str:
        """Return the task id of a row: the file's name without its endings, and the line number."""
        stem = Path(self.name).name.removesuffix(".gz").removesuffix(".jsonl")
        return f"{stem}-{self.index.line_number(row)}"

    def pairs(self, row: int) -> tuple[Pair, ...]:
        """Return the usable pairs of a row, ``min_pairs`` or more.

        Raises:
            BadRow: the line is damaged or has too few usable pairs. DataError: the line is damaged and the file strict.
        """
        examples, parse_grid = self._read_examples(row)
        results = [_parse_pair(example, parse_grid) for example in examples[: self.max_examples]]
        pairs = tuple(result for result in results if isinstance(result, Pair))
        reasons = [f"pair: {result}" for result in results if isinstance(result, str)]
        if len(pairs) < self.min_pairs:
            why = f"{len(pairs)} usable pairs, but {self.min_pairs} are needed"
            raise self._bad_row(row, why, [*reasons, "row: fewer usable pairs than needed"])
        self._count_skipped(row, reasons)
        return pairs

    def _read_examples(self, row: int) -> tuple[list[object], Callable[[object], Grid]]:
        """Return the examples of a row as JSON, and the function that parses their grids.

        ``Grid.from_json`` is fast but takes true and false for 1 and 0, so that rows which may contain booleans get
        ``Grid.from_rows``.
        """
        import orjson

        text = self.index.row(row)
        try:
            data = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise self._damaged_line(row, f"not JSON ({error.msg} at column {error.colno})") from None
        examples = data.get("examples")
        if not isinstance(examples, list):
            raise self._damaged_line(row, "field 'examples': expected a list of [input, output]")
        # The search for the words is a hundred times faster than the pattern, and most rows contain neither.
        has_words = b"true" in text or b"false" in text
        return examples, Grid.from_rows if has_words and _BOOLEAN.search(text) else Grid.from_json

    def _damaged_line(self, row: int, why: str) -> DataError:
        error = self._bad_row(row, why, ["row: damaged line"])
        return DataError(str(error)) if self.index.strict else error

    def _bad_row(self, row: int, why: str, reasons: list[str]) -> BadRow:
        """Count and log a bad row, if it is read for the first time, and return its error."""
        message = f"{self.name}, line {self.index.line_number(row)}: {why}"
        if self._count_skipped(row, reasons) and self._n_warnings <= MAX_REPORTED:
            last = " (later ones are only counted)" if self._n_warnings == MAX_REPORTED else ""
            log.warning("%s; the row is left out%s", message, last)
            self._n_warnings += 1
        return BadRow(message)

    def _count_skipped(self, row: int, reasons: list[str]) -> bool:
        """Add the reasons to ``skipped`` and return True, unless there are none or the row was counted before."""
        if not reasons or row in self._counted_rows:
            return False
        self._counted_rows.add(row)
        self.skipped.update(reasons)
        return True


def _parse_pair(example: object, parse_grid: Callable[[object], Grid]) -> Pair | str:
    """Return the pair, or the reason for which it is unusable."""
    if not isinstance(example, list) or len(example) != 2:
        return "not [input, output]"
    try:
        return Pair(parse_grid(example[0]), parse_grid(example[1]))
    except OversizeError:
        return "a side over 30"
    except GridError as error:
        return "a value outside 0-9" if error.kind == "bad_value" else "ragged or empty"

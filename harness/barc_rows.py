"""BARC: generated tasks as JSON lines, ``{"source": str, "examples": [[input, output], ...], "seeds": [...]}``.

The four published files hold 100,000 rows each, so that rows are read on demand through a line index. What is not
fit for use is skipped and counted by its reason.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import DataError, GridError
from harness.filecache import log
from harness.grid import Grid, OversizeError, Pair
from harness.lineindex import MAX_REPORTED, LineIndex
from harness.pools import MIN_PAIRS


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
        results = [_pair(example) for example in self._examples(row)[: self.max_examples]]
        found = tuple(result for result in results if isinstance(result, Pair))
        reasons = [f"pair: {result}" for result in results if isinstance(result, str)]
        if len(found) < self.min_pairs:
            why = f"{len(found)} usable pairs, but {self.min_pairs} are needed"
            raise self._bad_row(row, why, [*reasons, "row: fewer usable pairs than needed"])
        self._count(row, reasons)
        return found

    def _examples(self, row: int) -> list[object]:
        import orjson

        try:
            data = orjson.loads(self.index.row(row))
        except orjson.JSONDecodeError as error:
            raise self._damaged(row, f"not JSON ({error.msg} at column {error.colno})") from None
        examples = data.get("examples")
        if not isinstance(examples, list):
            raise self._damaged(row, "field 'examples': expected a list of [input, output]")
        return examples

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


def _pair(example: object) -> Pair | str:
    """A pair, or the reason why it is none."""
    if not isinstance(example, list) or len(example) != 2:
        return "not [input, output]"
    try:
        return Pair(Grid.from_rows(example[0]), Grid.from_rows(example[1]))
    except OversizeError:
        return "a side over 30"
    except GridError as error:
        return "a value outside 0-9" if error.kind == "bad_value" else "ragged or empty"

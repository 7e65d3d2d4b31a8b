"""Read the rows of a table of predictions (``bench export``): Parquet, CSV, or one JSON object per line."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import orjson

from harness.core.errors import DataError, MissingExtraError, short_repr
from harness.runs.logs.prediction_reader import read_json_lines

TABLE_ENDINGS = (".parquet", ".csv", ".jsonl")
"""File names of a table end so; a .jsonl may also hold lines of predictions.jsonl."""
WHOLE = frozenset(
    ("test_index", "sample_index", "answer_index", "n_tokens", "view", "answers", "truncated", "dropped", "requests")
)
"""Columns of whole numbers."""
NUMBERS = frozenset(("cumulative_logprob", "mean_logprob", "seconds", "unexplored"))
"""Columns of other numbers."""
TEXTS = frozenset(("model", "member", "task_id", "view_space"))
"""Columns whose empty text in a CSV file is a text, not a missing value."""
READ_COLUMNS = WHOLE | NUMBERS | TEXTS | {"symmetry", "outcome", "greedy_outcome", "grid"}
"""The columns that scoring reads; others are ignored."""
_BATCH = 8192

Row = Mapping[str, object]
"""Values by column; None where one is missing."""


@dataclass(frozen=True, slots=True)
class TableRows:
    """A table of predictions while it is read."""

    name: str
    """The file or frame, for messages."""
    columns: tuple[str, ...]
    """Those of READ_COLUMNS that the table has."""
    rows: Iterator[tuple[str, Row]]
    """Each row with its place, for messages."""


def open_table(path: Path) -> TableRows:
    """Open a file of predictions as a table; its rows are read in blocks.

    Raises:
        DataError: the file is damaged, or no such table. MissingExtraError: pyarrow, which reads Parquet, is missing.
    """
    if path.suffix == ".parquet":
        return _open_parquet(path)
    return _open_csv(path) if path.suffix == ".csv" else _open_json_lines(path)


def holds_table(path: Path) -> bool:
    """Return whether a .jsonl file holds a table: its first line has the column ``symmetry``.

    Raises:
        DataError: the first line is not JSON.
    """
    first = next(read_json_lines(path, True), None)
    return first is not None and "symmetry" in first[1]


def whole_number(value: object) -> object:
    """Return a number without a fraction as an integer, as columns with missing values hold them; else the value."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _open_parquet(path: Path) -> TableRows:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ModuleNotFoundError:
        raise MissingExtraError(f"{path}: Parquet needs pyarrow; pip install -e '.[export]'") from None
    try:
        file = ParquetFile(path)
    except (ArrowException, OSError) as error:
        raise DataError(f"{path}: is not a readable Parquet file ({error})") from None
    columns = tuple(name for name in file.schema_arrow.names if name in READ_COLUMNS)

    def rows() -> Iterator[tuple[str, Row]]:
        number = 0
        with file:
            try:
                for batch in file.iter_batches(_BATCH, columns=list(columns)):
                    for row in batch.to_pylist():
                        number += 1
                        yield f"{path}, row {number}", row
            except (ArrowException, OSError) as error:
                raise DataError(f"{path}: is damaged after row {number} ({error})") from None

    return TableRows(str(path), columns, rows())


def _open_csv(path: Path) -> TableRows:
    lines = _csv_lines(path)
    where, header = next(lines, (f"{path}, line 1", []))
    places = {name: place for place, name in enumerate(header) if name in READ_COLUMNS}
    if len(places) < sum(name in READ_COLUMNS for name in header):
        raise DataError(f"{where}: a column occurs twice; remove one of the two")

    def rows() -> Iterator[tuple[str, Row]]:
        for where, cells in lines:
            if len(cells) != len(header):
                raise DataError(f"{where}: {len(cells)} values for the {len(header)} columns of the header")
            yield where, {name: _csv_value(name, cells[place]) for name, place in places.items()}

    return TableRows(str(path), tuple(places), rows())


def _csv_lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield the lines of a CSV file that are not empty, each with its place."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            for cells in reader:
                if cells:
                    yield f"{path}, line {reader.line_num}", cells
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num}: not CSV ({error})") from None
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: not text in UTF-8 ({error.reason})") from None


def _csv_value(column: str, text: str) -> object:
    """Return the value of a cell: a number where the column has numbers, None if it is empty."""
    if not text and column not in TEXTS:
        return None
    if column in WHOLE or column in NUMBERS:
        with suppress(ValueError):
            return int(text) if column in WHOLE else float(text)
        with suppress(ValueError):
            return whole_number(float(text))
    return text


def _open_json_lines(path: Path) -> TableRows:
    lines = read_json_lines(path, accept_unended=True)
    if (first := next(lines, None)) is None:
        return TableRows(str(path), (), iter(()))
    columns = tuple(name for name in first[1] if name in READ_COLUMNS)

    def rows() -> Iterator[tuple[str, Row]]:
        for where, row in chain([first], lines):
            if missing := [name for name in columns if name not in row]:
                raise DataError(f"{where}: column {missing[0]!r} is missing, which the first line has")
            yield where, row

    return TableRows(str(path), columns, rows())


def grid_rows(value: object, where: str) -> object:
    """Return the value of the column ``grid`` as rows of colours: of JSON text, its value.

    Raises:
        DataError: the text is not JSON.
    """
    if isinstance(value, str):
        try:
            return orjson.loads(value)
        except orjson.JSONDecodeError as error:
            raise DataError(f"{where}, grid: {short_repr(value)} is not JSON ({error})") from None
    return value


def require_columns(table: TableRows, names: Sequence[str]) -> None:
    """Check that a table has these columns.

    Raises:
        DataError: one is missing.
    """
    if missing := [name for name in names if name not in table.columns]:
        raise DataError(
            f"{table.name}: column {missing[0]!r} is missing; a table of predictions has {', '.join(names)} "
            "(docs/python.md)"
        )

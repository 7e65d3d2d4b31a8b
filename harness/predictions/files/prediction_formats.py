"""The formats of saved predictions besides run folders: by name, and detected from a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.core.errors import ConfigError, DataError
from harness.core.json_stream import first_character
from harness.predictions.files.arc24_results import read_task_results
from harness.predictions.files.attempt_files import read_arcprize, read_attempts, task_files
from harness.predictions.files.prediction_tables import table_predictions
from harness.predictions.files.table_rows import TABLE_ENDINGS, holds_table, open_table
from harness.runs.logs.prediction_reader import Prediction, read_predictions

Reader = Callable[[Path, Mapping[str, int], list[str]], Iterator[Prediction]]
"""Yields the predictions of a file.

Its arguments: the path, the number of test outputs by task id, and a list to which it appends problems of the content
that do not keep it from reading on.
"""


@dataclass(frozen=True, slots=True)
class Format:
    """A format of saved predictions."""

    name: str
    summary: str
    read: Reader
    attempts: int | None = None
    """Maximum number of predictions per test output; None for any number."""


def read_lines(path: Path, outputs: Mapping[str, int], problems: list[str]) -> Iterator[Prediction]:
    """Read our predictions.jsonl, inside a run folder or alone."""
    return read_predictions(path, accept_unended=True)


def read_table(path: Path, outputs: Mapping[str, int], problems: list[str]) -> Iterator[Prediction]:
    """Read the drawn predictions of a table (``bench export``); ``group_table`` reads the other kinds."""
    return table_predictions(open_table(path))


ATTEMPT_FORMS = ("attempts", "kaggle", "arcprize")
"""Formats of attempts at each test output, which somebody has chosen already if they are one or two."""
FORMATS: dict[str, Format] = {
    form.name: form
    for form in (
        Format("lines", "our predictions.jsonl", read_lines),
        Format("table", "a table of bench export: .parquet, .csv, or .jsonl", read_table),
        Format("arc24", "arc24's *_task_results.json", read_task_results),
        Format("attempts", "{id: [{attempt_1: grid, …}, …]}, any number of attempts", read_attempts),
        Format("kaggle", "Kaggle's submission.json: the same with two attempts", read_attempts, attempts=2),
        Format("arcprize", "the ARC Prize folder: a file for each task", read_arcprize),
    )
}
"""By name, every format that is read besides run folders."""


def detect_format(path: Path) -> Format:
    """Return the format of a file or folder, detected from its name and first character.

    Raises:
        DataError: the format is unknown.
    """
    if path.is_dir():
        if not any(task_files(path)):
            raise DataError(f"{path}: neither a run (no manifest.json) nor an ARC Prize folder (no .json files)")
        return FORMATS["arcprize"]
    if path.name.endswith(".jsonl"):
        return FORMATS["table" if holds_table(path) else "lines"]
    if path.name.endswith(TABLE_ENDINGS):
        return FORMATS["table"]
    forms = {"[": "arc24", "{": "attempts"}
    if (start := first_character(path)) not in forms:
        raise DataError(f"{path}: begins like none of the known forms; name one with --format ({', '.join(FORMATS)})")
    return FORMATS[forms[start]]


def format_named(name: str) -> Format:
    """Return the format with this name.

    Raises:
        ConfigError: no format has this name.
    """
    if name not in FORMATS:
        raise ConfigError(f"there is no format {name!r}; choose one of {', '.join(FORMATS)}")
    return FORMATS[name]

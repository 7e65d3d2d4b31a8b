"""Read the rows of a data frame of predictions that was made elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import orjson
import pandas as pd

from harness.core.errors import DataError
from harness.predictions.files.table_rows import READ_COLUMNS, WHOLE, Row, TableRows, whole_number

_BLOCK = 1 << 14


def frame_table(frame: pd.DataFrame, name: str) -> TableRows:
    """Return a data frame as a table; its rows are converted in blocks.

    The rows of enumerated views may have any order: each view's answers are put before its own row.

    Args:
        name: what messages call it.

    Raises:
        DataError: a column occurs twice.
    """
    columns = [column for column in frame.columns if column in READ_COLUMNS]
    if len(set(columns)) < len(columns):
        raise DataError(f"{name}: a column occurs twice; remove one of the two")
    if "answer_index" in columns and set(columns) >= {"model", "task_id", "test_index", "sample_index"}:
        frame = _sorted_views(frame)
    return TableRows(name, tuple(columns), _rows(frame[columns], name))


def _sorted_views(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows sorted by view, answers in their order, then the row of the view."""
    keys = ["model", "task_id", "test_index", "sample_index", "answer_index"]
    order = frame[keys].reset_index(drop=True).sort_values(keys, na_position="last", kind="stable").index
    return frame.iloc[order.to_numpy()]


def _rows(frame: pd.DataFrame, name: str) -> Iterator[tuple[str, Row]]:
    for start in range(0, len(frame), _BLOCK):
        block = frame.iloc[start : start + _BLOCK]
        columns = [_values(block[column]) for column in block.columns]
        for number, values in enumerate(zip(*columns, strict=True), start):
            yield f"{name}, row {number}", dict(zip(block.columns, values, strict=True))


def _values(column: pd.Series) -> list[object]:
    """Return the values of a column as Python objects; None for missing ones."""
    missing = np.asarray(column.isna(), dtype=np.bool_).tolist()
    values = [None if na else value for value, na in zip(column.tolist(), missing, strict=True)]
    if column.name == "grid":
        return [_plain(value) for value in values]
    return [whole_number(value) for value in values] if column.name in WHOLE else values


def _plain(value: object) -> object:
    """Return an array, or a list of arrays or of numpy's numbers, as lists; any other value as it is."""
    value = value.tolist() if isinstance(value, np.ndarray) else value
    if isinstance(value, list):
        with suppress(TypeError):
            return orjson.loads(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY))
    return value

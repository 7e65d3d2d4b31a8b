"""Write predictions as a table: Parquet, CSV, or one JSON object per line."""

from __future__ import annotations

from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import BinaryIO

import orjson
import pandas as pd

from harness.core.errors import ConfigError, DataError, MissingExtraError
from harness.core.files import atomic_writer
from harness.core.grid import Grid
from harness.frames.columns import Kind, Schema
from harness.frames.prediction_frame import prediction_table
from harness.predictions.files.table_rows import TABLE_ENDINGS
from harness.predictions.prediction_stream import stream_predictions

EXPORTED_ROWS = 1 << 14
"""Rows that are written at once, which are a row group of a Parquet file: their grids are texts, which take memory."""


def export_predictions(
    path: Path, output: Path, spec: str | None = None, form: str | None = None, texts: bool = False
) -> int:
    """Write the predictions of a run, pool or file as a table, in bounded memory, and return the number of rows.

    Args:
        output: its ending chooses the form, of TABLE_ENDINGS. It is replaced atomically.
        spec, form: as for ``open_predictions``.
        texts: whether to write the servers' answers.

    Raises:
        ConfigError: the ending is another one, or an option is missing. MissingExtraError: pyarrow is not installed.
        DataError, RunError: the predictions are damaged; nothing is written.
    """
    if output.suffix not in TABLE_ENDINGS:
        raise ConfigError(f"{output}: a table ends in {', '.join(TABLE_ENDINGS)}")
    if output.suffix == ".parquet":
        _require_pyarrow()
    table = prediction_table(
        stream_predictions(path, spec, form), Grid.to_rows if output.suffix == ".jsonl" else json_text, texts
    )
    frames = (table.columns.frame([block]) for block in table.columns.blocks(table.rows, EXPORTED_ROWS))
    if output.exists() and output.samefile(path):
        raise ConfigError(f"{output}: is the file that is read; choose another -o")
    with atomic_writer(output) as file:
        if output.suffix == ".parquet":
            rows = _write_parquet(file, frames, table.columns.schema)
        else:
            rows = _write_csv(file, frames) if output.suffix == ".csv" else _write_json_lines(file, frames)
        if not rows:
            raise DataError(f"{path}: holds no prediction")
    return rows


def json_text(grid: Grid) -> str:
    """Return the rows of a grid as JSON."""
    return orjson.dumps(grid.to_rows()).decode()


def _require_pyarrow() -> None:
    try:
        import pyarrow  # noqa: F401
    except ModuleNotFoundError:
        raise MissingExtraError(
            "Parquet needs pyarrow; pip install -e '.[export]', or write .csv or .jsonl, which need nothing"
        ) from None


def _write_parquet(file: BinaryIO, frames: Iterator[pd.DataFrame], schema: Schema) -> int:
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    types: dict[Kind, pa.DataType] = {
        "category": pa.dictionary(pa.int32(), pa.string()), "Int16": pa.int16(), "Int32": pa.int32(),
        "Int64": pa.int64(), "Float64": pa.float64(), "boolean": pa.bool_(), "object": pa.string(),
    }  # fmt: skip
    fields = pa.schema([(name, types[kind]) for name, kind in schema.items()])
    rows = 0
    with ParquetWriter(file, fields, compression="zstd") as writer:
        for frame in frames:
            writer.write_table(pa.Table.from_pandas(frame, fields, preserve_index=False))
            rows += len(frame)
    return rows


def _write_csv(file: BinaryIO, frames: Iterator[pd.DataFrame]) -> int:
    rows = 0
    text = TextIOWrapper(file, encoding="utf-8", newline="")
    for frame in frames:
        frame.to_csv(text, index=False, header=rows == 0, lineterminator="\n")
        rows += len(frame)
    text.detach()  # flushes, and leaves the file open
    return rows


def _write_json_lines(file: BinaryIO, frames: Iterator[pd.DataFrame]) -> int:
    rows = 0
    for frame in frames:
        columns = [_json_values(frame[name]) for name in frame]
        for values in zip(*columns, strict=True):
            file.write(orjson.dumps(dict(zip(frame, values, strict=True)), option=orjson.OPT_APPEND_NEWLINE))
        rows += len(frame)
    return rows


def _json_values(column: pd.Series) -> list[object]:
    """Return the values of a column; None for missing ones."""
    missing = column.isna()
    return [None if na else value for value, na in zip(column.tolist(), missing.tolist(), strict=True)]

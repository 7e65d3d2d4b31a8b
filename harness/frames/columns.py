"""Columns of a data frame, filled in blocks from rows, so that no list of all rows is ever held."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.core.errors import DataError

Kind = Literal["category", "Int16", "Int32", "Int64", "Float64", "boolean", "object"]
"""The dtype of a column; all but ``object`` hold missing values as ``pandas.NA``."""
BLOCK_ROWS = 1 << 16
"""Rows that are held as Python objects at once."""

_STORED: dict[Kind, type[Any]] = {
    "Int16": np.int16,
    "Int32": np.int32,
    "Int64": np.int64,
    "Float64": np.float64,
    "boolean": np.bool_,
}

Schema = Mapping[str, Kind]
"""The columns in order."""


@dataclass(slots=True)
class Categories:
    """The distinct texts of a column, each with a code in the order of its first use."""

    codes: dict[str, int] = field(default_factory=dict)

    def encode(self, values: Iterable[str | None]) -> NDArray[np.int32]:
        """Return the code of each value; -1 for a missing one."""
        codes = self.codes
        numbers = (-1 if value is None else codes.setdefault(value, len(codes)) for value in values)
        return np.fromiter(numbers, np.int32)


@dataclass(frozen=True, slots=True)
class Stored:
    """The values of a column in one block, and which of them are missing."""

    values: NDArray[Any]
    missing: NDArray[np.bool_]


Block = dict[str, Stored]


@dataclass(frozen=True, slots=True)
class Columns:
    """Turns rows into blocks of columns, and blocks into data frames.

    Attributes:
        schema: the columns; a row has a value for each, None for a missing one.
    """

    schema: Schema
    categories: dict[str, Categories] = field(default_factory=dict)

    def blocks(self, rows: Iterator[Sequence[object]], size: int = BLOCK_ROWS) -> Iterator[Block]:
        """Yield the rows in blocks of columns."""
        while block := list(islice(rows, size)):
            by_column: Iterable[tuple[Any, ...]] = zip(*block, strict=True)
            del block
            yield {
                name: self._store(name, kind, values)
                for (name, kind), values in zip(self.schema.items(), by_column, strict=True)
            }

    def frame(self, blocks: Iterable[Block]) -> pd.DataFrame:
        """Return the data frame of blocks, in which texts are categoricals with the categories so far."""
        parts: dict[str, list[Stored]] = {name: [] for name in self.schema}
        for block in blocks:
            for name, stored in block.items():
                parts[name].append(stored)
        # Each column's blocks are released as soon as it is joined.
        return pd.DataFrame({name: self._join(name, kind, parts.pop(name)) for name, kind in self.schema.items()})

    def _store(self, name: str, kind: Kind, values: Sequence[Any]) -> Stored:
        """Return the values of a column of one block."""
        if kind == "category":
            codes = self.categories.setdefault(name, Categories()).encode(values)
            return Stored(codes, np.empty(0, np.bool_))
        if kind == "object":
            array = np.empty(len(values), dtype=object)
            for row, value in enumerate(values):  # numpy would make one array of equally large grids
                array[row] = value
            return Stored(array, np.empty(0, np.bool_))
        count = len(values)
        missing = np.fromiter((value is None for value in values), np.bool_, count)
        if missing.any():
            values = [0 if value is None else value for value in values]
        try:
            return Stored(np.fromiter(values, _STORED[kind], count), missing)
        except OverflowError:
            raise DataError(f"column {name}: holds a number that is too large for {kind}") from None

    def _join(self, name: str, kind: Kind, parts: Sequence[Stored]) -> Any:
        """Return a column of all blocks as an array of pandas."""
        if kind == "category":
            codes = _concatenate([part.values for part in parts], np.dtype(np.int32))
            names = pd.Index(list(self.categories.setdefault(name, Categories()).codes), dtype="str")
            return pd.Categorical.from_codes(codes, categories=names)
        if kind == "object":
            return _concatenate([part.values for part in parts], np.dtype(object))
        values = _concatenate([part.values for part in parts], np.dtype(_STORED[kind]))
        missing = _concatenate([part.missing for part in parts], np.dtype(np.bool_))
        if kind == "boolean":
            return pd.arrays.BooleanArray(values, missing)
        if kind == "Float64":
            return pd.arrays.FloatingArray(values, missing)
        return pd.arrays.IntegerArray(values, missing)


def make_frame(schema: Schema, rows: Iterable[Sequence[object]]) -> pd.DataFrame:
    """Return the data frame of rows, each with a value for every column of the schema."""
    columns = Columns(schema)
    return columns.frame(columns.blocks(iter(rows)))


def _concatenate(arrays: Sequence[NDArray[Any]], dtype: np.dtype[Any]) -> NDArray[Any]:
    return np.concatenate(arrays) if arrays else np.empty(0, dtype)

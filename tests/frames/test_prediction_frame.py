"""Columns hold the values of their rows, in blocks of any size, and the id of a grid is that of no other."""

from __future__ import annotations

from itertools import product

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.errors import DataError
from harness.core.grid import Grid
from harness.frames.columns import Columns, Schema, make_frame
from harness.frames.prediction_frame import GridArrays, grid_id

SCHEMA: Schema = {
    "name": "category",
    "small": "Int16",
    "count": "Int32",
    "large": "Int64",
    "number": "Float64",
    "flag": "boolean",
    "pair": "object",
}
ROW = st.tuples(
    st.one_of(st.none(), st.text(max_size=3)),
    st.one_of(st.none(), st.integers(-(2**15), 2**15 - 1)),
    st.one_of(st.none(), st.integers(-(2**31), 2**31 - 1)),
    st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)),
    st.one_of(st.none(), st.floats(allow_nan=False)),
    st.one_of(st.none(), st.booleans()),
    st.one_of(st.none(), st.lists(st.integers(0, 9), min_size=2, max_size=2)),
)


@given(st.lists(ROW, max_size=12), st.integers(1, 5))
def test_a_frame_holds_its_rows(rows: list[tuple[object, ...]], size: int) -> None:
    columns = Columns(SCHEMA)
    frame = columns.frame(columns.blocks(iter(rows), size))
    values = [[None if value is pd.NA or value is None else value for value in frame[name].tolist()] for name in SCHEMA]
    names = [value if isinstance(value, str) else None for value in values[0]]  # a categorical has nan for missing
    assert list(zip(names, *values[1:], strict=True)) == rows
    assert [str(dtype) for dtype in frame.dtypes] == list(SCHEMA.values())
    pd.testing.assert_frame_equal(frame, make_frame(SCHEMA, rows))


def test_a_value_that_does_not_fit_is_no_other_value() -> None:
    with pytest.raises(DataError, match="column small: holds a number that is too large for Int16"):
        make_frame({"small": "Int16"}, [(2**15,)])


def test_ids_of_all_small_grids_differ() -> None:
    shapes = [(1, 1), (1, 2), (2, 1), (1, 3), (3, 1), (2, 2), (1, 4), (4, 1)]
    grids = [Grid(h, w, bytes(cells)) for h, w in shapes for cells in product(range(3), repeat=h * w)]
    ids = {grid_id(grid) for grid in grids}
    assert len(ids) == len(grids)
    assert all(0 <= identifier < 2**63 for identifier in ids)
    assert grid_id(grids[0]) == grid_id(Grid(1, 1, b"\0"))


def test_equal_grids_share_one_array_that_cannot_be_changed() -> None:
    arrays = GridArrays()
    first, second = arrays(Grid(2, 1, b"\1\2")), arrays(Grid(2, 1, b"\1\2"))
    assert first is second
    assert first.tolist() == [[1], [2]]
    with pytest.raises(ValueError, match="read-only"):
        first[0, 0] = 5

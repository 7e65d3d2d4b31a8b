"""Grids: conversion from and to rows, and what is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.errors import GridError
from harness.core.grid import Grid, OversizeError
from tests.support.data_samples import grids


@given(grids())
def test_rows_and_columns_round_trip(grid: Grid) -> None:
    assert Grid.from_rows(grid.to_rows()) == grid
    assert Grid.from_byte_rows(grid.rows()) == grid
    assert [bytes(column) for column in zip(*grid.rows(), strict=True)] == grid.columns()
    assert grid.shape == (len(grid.to_rows()), len(grid.to_rows()[0]))


JSON = st.recursive(
    st.one_of(st.none(), st.integers(-2, 12), st.just(10**30), st.floats(), st.text(max_size=2)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
)


@given(st.one_of(JSON, st.integers(0, 31).flatmap(lambda w: st.lists(st.just([1] * w), max_size=32)), grids()))
def test_from_json_equals_from_rows_without_booleans(value: object) -> None:
    rows = value.to_rows() if isinstance(value, Grid) else value

    def result_of(read: Callable[[object], Grid]) -> object:
        try:
            return read(rows)
        except GridError as error:
            return type(error), str(error)

    assert result_of(Grid.from_json) == result_of(Grid.from_rows)


def test_grids_are_immutable_and_compare_by_content() -> None:
    one, two = Grid.from_rows([[1, 2]]), Grid.from_rows(((1, 2),))
    assert one == two
    assert len({one, two, Grid.from_rows([[1], [2]])}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.height = 3  # type: ignore[misc]


@pytest.mark.parametrize("rows", [[], None, 7, "12", {}, [[]], [[1], []], [1, 2], [[1, 2], [3]], ["12", "34"]])
def test_rows_that_are_no_rectangle_are_refused(rows: object) -> None:
    with pytest.raises(GridError) as error:
        Grid.from_rows(rows, "task a, test 0")
    assert error.value.kind == "bad_shape"
    assert str(error.value).startswith("task a, test 0")


@pytest.mark.parametrize(("height", "width"), [(31, 1), (1, 31), (31, 31)])
def test_sides_over_30_are_refused(height: int, width: int) -> None:
    for read in (Grid.from_rows, Grid.from_json):
        with pytest.raises(OversizeError, match=f"{height}x{width}") as error:
            read([[0] * width] * height)
        assert error.value.kind == "bad_shape"
    assert Grid.from_rows([[0] * min(width, 30)] * min(height, 30)).shape == (min(height, 30), min(width, 30))


@pytest.mark.parametrize("value", [-1, 10, 255, 256, 10**30, True, False, 1.0, "1", None, [1]])
def test_cells_that_are_no_colour_are_refused(value: object) -> None:
    with pytest.raises(GridError, match="row 1, column 0") as error:
        Grid.from_rows([[0, 1], [value, 2]])
    assert error.value.kind == "bad_value"

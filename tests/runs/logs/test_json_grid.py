"""Grids of parsed JSON are read as strictly as any other value."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product

import orjson
from hypothesis import example, given
from hypothesis import strategies as st

from harness.core.errors import GridError
from harness.core.grid import Grid
from harness.runs.logs.json_grid import read_json_grid

CELLS = [0, 9, 10, -1, 1.0, True, None, "1", [1], [], {}, {"1": 1}, 123]
VALUES = st.recursive(
    st.one_of(st.integers(-1, 11), st.booleans(), st.none(), st.floats(0, 9), st.text("01,[]", max_size=3)),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=12,
)


def outcome(read: Callable[[object, str], Grid], rows: object) -> object:
    """Return the grid, or the kind and message of the error."""
    try:
        return read(rows, "x")
    except GridError as error:
        return error.kind, str(error)


def assert_same(rows: object) -> None:
    """Assert that both readers give the same grid or the same error."""
    assert outcome(read_json_grid, rows) == outcome(partial(Grid.from_rows, long_rows=True), rows)


@given(VALUES)
def test_any_value_gives_the_same_grid_or_error(value: object) -> None:
    assert_same(orjson.loads(orjson.dumps(value)))


@given(st.integers(1, 31), st.one_of(st.integers(1, 31), st.integers(127, 129)), st.data())
@example(1, 128, None)
@example(128, 1, None)
def test_grids_of_all_sizes_are_read(height: int, width: int, data: st.DataObject | None) -> None:
    rows = [[(7 * i + j) % 10 for j in range(width)] for i in range(height)]
    assert_same(rows)
    rows[0 if data is None else data.draw(st.integers(0, height - 1))].pop()
    assert_same(rows)


def test_three_cells_in_any_arrangement() -> None:
    for cells in product(CELLS, repeat=3):
        for rows in ([list(cells)], [[c] for c in cells], [[cells[0]], list(cells[1:])], [[], list(cells)], cells):
            assert_same(rows)


def test_up_to_three_rows_of_any_nesting() -> None:
    values = [1, [], [1], [[1]], [1, 1], [[1], 1], [[1, 1]], [[[1]]], "1", None]
    for count in (1, 2, 3):
        for rows in product(values, repeat=count):
            assert_same(list(rows))

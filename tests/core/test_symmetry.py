"""Symmetries of grids, and the canonical form."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.grid import COLOURS, Grid
from harness.core.symmetry import SYMMETRIES, apply_symmetry, canonical_bucket, canonical_grid, inverse_symmetry
from tests.support.data_samples import grids

symmetries = st.sampled_from(SYMMETRIES)
_NUMPY = {
    "identity": lambda a: a,
    "rot90": np.rot90,
    "rot180": lambda a: np.rot90(a, 2),
    "rot270": lambda a: np.rot90(a, 3),
    "flip_lr": np.fliplr,
    "flip_ud": np.flipud,
    "transpose": np.transpose,
    "anti_transpose": lambda a: np.rot90(np.transpose(a), 2),
}


@given(grids(), symmetries)
def test_the_inverse_symmetry_undoes_a_symmetry(grid: Grid, name: str) -> None:
    assert apply_symmetry(inverse_symmetry(name), apply_symmetry(name, grid)) == grid


@given(grids(12), symmetries)
def test_symmetries_equal_those_of_numpy(grid: Grid, name: str) -> None:
    assert apply_symmetry(name, grid).to_rows() == _NUMPY[name](np.array(grid.to_rows())).tolist()


@pytest.mark.parametrize("name", SYMMETRIES)
def test_the_eight_symmetries_form_a_group(name: str) -> None:
    grid = Grid.from_rows([[1, 2, 3], [4, 5, 6]])
    images = {apply_symmetry(other, grid) for other in SYMMETRIES}
    assert len(images) == 8
    assert {apply_symmetry(other, apply_symmetry(name, grid)) for other in SYMMETRIES} == images


@given(grids(), symmetries, st.permutations(range(COLOURS)))
def test_the_canonical_form_is_equal_under_symmetries_and_colours(grid: Grid, name: str, colours: list[int]) -> None:
    turned = apply_symmetry(name, grid)
    other = Grid(turned.height, turned.width, bytes(colours[c] for c in turned.cells))
    assert canonical_grid(other) == canonical_grid(grid)
    assert canonical_bucket(other, 8) == canonical_bucket(grid, 8)


def test_the_canonical_form_differs_between_classes() -> None:
    rows = (
        [[0, 0]],
        [[0, 1]],
        [[0, 0, 0]],
        [[0, 0], [0, 0]],
        [[0, 1], [1, 0]],
        [[0, 1], [0, 1]],
        [[0, 1, 0]],
        [[0, 0, 1]],
    )
    assert len({canonical_grid(Grid.from_rows(r)) for r in rows}) == len(rows)

"""The eight rotations and reflections of a grid, and the canonical form that they and colours leave unchanged."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from harness.core.grid import Grid

SYMMETRIES = ("identity", "rot90", "rot180", "rot270", "flip_lr", "flip_ud", "transpose", "anti_transpose")
"""Names in the order that sampling cycles through; rotations are counter-clockwise (as in numpy.rot90)."""

_INVERSE = {"rot90": "rot270", "rot270": "rot90"}


def _rot90(g: Grid) -> Grid:
    return Grid.from_byte_rows(g.columns()[::-1])


def _rot180(g: Grid) -> Grid:
    return Grid(g.height, g.width, g.cells[::-1])


def _rot270(g: Grid) -> Grid:
    return Grid.from_byte_rows([c[::-1] for c in g.columns()])


def _flip_lr(g: Grid) -> Grid:
    return Grid.from_byte_rows([r[::-1] for r in g.rows()])


def _flip_ud(g: Grid) -> Grid:
    return Grid.from_byte_rows(g.rows()[::-1])


def _transpose(g: Grid) -> Grid:
    return Grid.from_byte_rows(g.columns())


def _anti_transpose(g: Grid) -> Grid:
    return Grid.from_byte_rows([c[::-1] for c in g.columns()[::-1]])


_APPLY: dict[str, Callable[[Grid], Grid]] = {
    "identity": lambda g: g,
    "rot90": _rot90,
    "rot180": _rot180,
    "rot270": _rot270,
    "flip_lr": _flip_lr,
    "flip_ud": _flip_ud,
    "transpose": _transpose,
    "anti_transpose": _anti_transpose,
}


def apply_symmetry(name: str, grid: Grid) -> Grid:
    """The grid under one of SYMMETRIES; the shape is swapped by the four that exchange rows and columns."""
    return _APPLY[name](grid)


def inverse_symmetry(name: str) -> str:
    """The symmetry that undoes ``name``."""
    return _INVERSE.get(name, name)


def relabel(cells: bytes) -> bytes:
    """Colours renamed by order of first appearance, so that any colour bijection gives the same bytes."""
    table = bytearray(256)
    for new, old in enumerate(dict.fromkeys(cells)):
        table[old] = new
    return cells.translate(bytes(table))


def canonical_grid(grid: Grid) -> bytes:
    """A key equal for two grids iff a symmetry and a colour bijection carry one into the other."""
    forms = (apply_symmetry(name, grid) for name in SYMMETRIES)
    return min(bytes((f.height, f.width)) + relabel(f.cells) for f in forms)


def canonical_bucket(grid: Grid, buckets: int) -> int:
    """A stable hash of the canonical form in [0, buckets): whole symmetry classes fall into one bucket."""
    digest = hashlib.blake2b(canonical_grid(grid), digest_size=8).digest()
    return int.from_bytes(digest, "little") % buckets

"""The eight rotations and reflections of a grid, and a canonical form that is equal for all of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from harness.core.grid import Grid

SYMMETRIES = ("identity", "rot90", "rot180", "rot270", "flip_lr", "flip_ud", "transpose", "anti_transpose")
"""Names in the order in which sampling cycles through them; rotations are counter-clockwise, as in numpy.rot90."""

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
    """Return the grid under one of SYMMETRIES; four of them swap height and width."""
    return _APPLY[name](grid)


def inverse_symmetry(name: str) -> str:
    """Return the name of the symmetry that undoes ``name``."""
    return _INVERSE.get(name, name)


def canonical_colours(cells: bytes) -> bytes:
    """Return the cells with colours numbered in order of first appearance, equal under every colour bijection."""
    table = bytearray(256)
    for new, old in enumerate(dict.fromkeys(cells)):
        table[old] = new
    return cells.translate(bytes(table))


def canonical_grid(grid: Grid) -> bytes:
    """Return a key that is equal for two grids iff a symmetry and a colour bijection map one to the other."""
    forms = (apply_symmetry(name, grid) for name in SYMMETRIES)
    return min(bytes((f.height, f.width)) + canonical_colours(f.cells) for f in forms)


def canonical_bucket(grid: Grid, buckets: int) -> int:
    """Return a hash of the canonical form in [0, buckets); grids with the same canonical form share a bucket."""
    digest = hashlib.blake2b(canonical_grid(grid), digest_size=8).digest()
    return int.from_bytes(digest, "little") % buckets

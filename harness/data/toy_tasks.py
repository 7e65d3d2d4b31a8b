"""Generates tasks of simple rules that a tiny model can learn, for machines without model weights.

Every family is closed under the eight symmetries and under colour permutations, so that a view of a task belongs to the
same family. The splits share no input grid up to symmetry and colours: the hash of a grid's canonical form decides
whether it belongs to ``training`` or ``evaluation``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.core.errors import SpecError
from harness.core.grid import COLOURS, Grid, Pair, Task
from harness.core.random_stream import Stream
from harness.core.symmetry import apply_symmetry, canonical_bucket

SIDES = (3, 4)
N_TRAIN_PAIRS = 4
_EVALUATION_SHARE = 8
"""One in this many canonical classes of grids belongs to the evaluation split."""

Rule = Callable[[Grid], Grid]
Mask = Callable[[int, int, int], bool]


@dataclass(frozen=True, slots=True)
class Family:
    """A family of tasks that share a kind of rule."""

    name: str
    summary: str
    colours: tuple[int, int]
    """Least and greatest number of colours of an input."""
    draw_rules: Callable[[Stream, tuple[int, ...]], list[Rule]]
    """Draws equally likely rules, given a stream and the colours of the inputs. A task follows the first of them."""
    inferred: bool = False
    """Whether the train pairs must be read to know which of several rules applies."""


def _mask_rule(mask: Mask, colour: int) -> Rule:
    """Return the rule that sets the masked cells to a colour. A mask takes row, column and side."""

    def apply(grid: Grid) -> Grid:
        n = grid.width
        cells = bytes(colour if mask(k // n, k % n, n) else c for k, c in enumerate(grid.cells))
        return Grid(grid.height, grid.width, cells)

    return apply


def _mask_family(name: str, summary: str, *masks: Mask) -> Family:
    """Return a family whose rules set the cells of one of the masks to one colour."""

    def draw_rules(stream: Stream, palette: tuple[int, ...]) -> list[Rule]:
        colour = stream.below(COLOURS)
        order = stream.permutation(len(masks))
        return [_mask_rule(masks[i], colour) for i in order]

    return Family(name, summary, (3, 5), draw_rules, inferred=len(masks) > 1)


def _draw_copy(stream: Stream, palette: tuple[int, ...]) -> list[Rule]:
    return [lambda grid: grid]


def _draw_recolourings(stream: Stream, palette: tuple[int, ...]) -> list[Rule]:
    def draw_rule() -> Rule:
        table = bytearray(range(256))
        for old, new in zip(palette, stream.sample(range(COLOURS), len(palette)), strict=True):
            table[old] = new
        frozen = bytes(table)
        return lambda grid: Grid(grid.height, grid.width, grid.cells.translate(frozen))

    return [draw_rule(), draw_rule()]


def _draw_flips(stream: Stream, palette: tuple[int, ...]) -> list[Rule]:
    names = ("flip_lr", "flip_ud", "transpose", "anti_transpose")
    return [lambda grid, name=names[i]: apply_symmetry(name, grid) for i in stream.permutation(4)]  # type: ignore[misc]


FAMILIES: dict[str, Family] = {
    f.name: f
    for f in (
        Family("copy", "the output is the input", (3, 5), _draw_copy),
        Family(
            "recolour",
            "each colour becomes another; the map is inferred from the examples",
            (2, 4),
            _draw_recolourings,
            True,
        ),
        _mask_family("border", "the outer ring is painted", lambda i, j, n: i in (0, n - 1) or j in (0, n - 1)),
        _mask_family("corners", "the four corners are painted", lambda i, j, n: i in (0, n - 1) and j in (0, n - 1)),
        _mask_family(
            "edge",
            "one of the four edges is painted; which one is inferred from the examples",
            lambda i, j, n: i == 0,
            lambda i, j, n: i == n - 1,
            lambda i, j, n: j == 0,
            lambda i, j, n: j == n - 1,
        ),
        _mask_family("cross", "the middle rows and columns are painted", lambda i, j, n: _mid(i, n) or _mid(j, n)),
        _mask_family("diagonal", "both diagonals are painted", lambda i, j, n: i == j or i + j == n - 1),
        _mask_family("centre", "all but the outer ring is painted", lambda i, j, n: 0 < i < n - 1 and 0 < j < n - 1),
        Family(
            "flip", "one of the four reflections; which one is inferred from the examples", (3, 5), _draw_flips, True
        ),
    )
}


def _mid(i: int, n: int) -> bool:
    """Return whether ``i`` is a middle index of ``n``: the one or, for even ``n``, one of the two."""
    return i in ((n - 1) // 2, n // 2)


def toy_task(
    family: str, split: str, seed: int, index: int, *, size: int | None = None, other_rule: bool = False
) -> Task:
    """Return task ``index`` of a family, a pure function of the arguments.

    Args:
        family: a key of FAMILIES.
        split: ``training`` or ``evaluation``.
        size: the side of every grid; None draws it from SIDES.
        other_rule: make a control, whose train pairs follow another rule of the family than its test pair, so that a
            model can only guess.

    Raises:
        SpecError: unknown family or split, or a control of a family with a single rule.
    """
    if family not in FAMILIES:
        raise SpecError(f"toy/{family}: unknown family; known: {', '.join(FAMILIES)}")
    if split not in ("training", "evaluation"):
        raise SpecError(f"toy/{family}/{split}: unknown split; known: training, evaluation")
    kind = FAMILIES[family]
    stream = Stream("toy", family, split, seed, index)
    side = size or stream.choice(SIDES)
    palette = stream.sample(range(COLOURS), stream.between(*kind.colours))
    rules = kind.draw_rules(stream, palette)
    if other_rule and len(rules) < 2:
        raise SpecError(f"toy/{family}: has one rule only, so that it has no control with another")
    train_rule = rules[1] if other_rule else rules[0]
    train: list[Pair] = []
    while len(train) < N_TRAIN_PAIRS:
        grid = _draw_grid(stream, palette, side, split)
        train.append(Pair(grid, train_rule(grid)))
    shown_colours = set().union(*(pair.input.cells for pair in train))
    while True:
        grid = _draw_grid(stream, palette, side, split)
        if shown_colours.issuperset(grid.cells):
            return Task(f"{family}-{index:06d}", tuple(train), (Pair(grid, rules[0](grid)),))


def _draw_grid(stream: Stream, palette: tuple[int, ...], side: int, split: str) -> Grid:
    """Draw a grid of two or more colours that belongs to the split."""
    while True:
        grid = Grid(side, side, bytes(stream.choice(palette) for _ in range(side * side)))
        if len(set(grid.cells)) > 1 and (canonical_bucket(grid, _EVALUATION_SHARE) == 0) == (split == "evaluation"):
            return grid

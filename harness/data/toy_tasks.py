"""Generated task families for machines without weights: small rules that a tiny model can learn.

Every family is closed under the eight symmetries and under colour permutations, so that augmented
predictions map back exactly. The two splits share no input grid up to symmetry and colour: a grid
belongs to ``evaluation`` where the hash of its canonical form says so, else to ``training``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from harness.core.errors import SpecError
from harness.core.grid import COLOURS, Grid, Pair, Task
from harness.core.random_stream import Stream
from harness.core.symmetry import apply_symmetry, canonical_bucket

SIZES = (3, 4)
TRAIN_PAIRS = 4
_EVALUATION_SHARE = 8
"""One canonical class in this many belongs to the evaluation split."""

Rule = Callable[[Grid], Grid]
Mask = Callable[[int, int, int], bool]


@dataclass(frozen=True, slots=True)
class Family:
    """A family of tasks: ``rules(stream, palette)`` draws equally likely rules, the first being the task's."""

    name: str
    summary: str
    colours: tuple[int, int]
    """The least and most colours of an input."""
    rules: Callable[[Stream, tuple[int, ...]], list[Rule]]
    inferred: bool = False
    """Whether one of several rules must be inferred from the examples."""


def _masked(mask: Mask, colour: int) -> Rule:
    def paint(grid: Grid) -> Grid:
        n = grid.width
        cells = bytes(colour if mask(k // n, k % n, n) else c for k, c in enumerate(grid.cells))
        return Grid(grid.height, grid.width, cells)

    return paint


def _mask_family(name: str, summary: str, *masks: Mask) -> Family:
    def rules(stream: Stream, palette: tuple[int, ...]) -> list[Rule]:
        colour = stream.below(COLOURS)
        order = stream.permutation(len(masks))
        return [_masked(masks[i], colour) for i in order]

    return Family(name, summary, (3, 5), rules, inferred=len(masks) > 1)


def _copy(stream: Stream, palette: tuple[int, ...]) -> list[Rule]:
    return [lambda grid: grid]


def _recolour(stream: Stream, palette: tuple[int, ...]) -> list[Rule]:
    def rule() -> Rule:
        table = bytearray(range(256))
        for old, new in zip(palette, stream.sample(range(COLOURS), len(palette)), strict=True):
            table[old] = new
        frozen = bytes(table)
        return lambda grid: Grid(grid.height, grid.width, grid.cells.translate(frozen))

    return [rule(), rule()]


def _flip(stream: Stream, palette: tuple[int, ...]) -> list[Rule]:
    names = ("flip_lr", "flip_ud", "transpose", "anti_transpose")
    return [lambda grid, name=names[i]: apply_symmetry(name, grid) for i in stream.permutation(4)]  # type: ignore[misc]


FAMILIES: dict[str, Family] = {
    f.name: f
    for f in (
        Family("copy", "the output is the input", (3, 5), _copy),
        Family(
            "recolour", "each colour becomes another; the map is inferred from the examples", (2, 4), _recolour, True
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
        Family("flip", "one of the four reflections; which one is inferred from the examples", (3, 5), _flip, True),
    )
}


def _mid(i: int, n: int) -> bool:
    return i in ((n - 1) // 2, n // 2)


def toy_task(
    family: str, split: str, seed: int, index: int, *, size: int | None = None, other_rule: bool = False
) -> Task:
    """Task ``index`` of a family: a pure function of its arguments.

    Args:
        family: a key of FAMILIES.
        split: ``training`` or ``evaluation``.
        size: the side of every grid; drawn from SIZES where None.
        other_rule: a control. The train pairs follow another rule of the family than the test pair,
            so that nothing but guessing is left (only families with several rules).

    Raises:
        SpecError: unknown family or split, or a control of a family with one rule.
    """
    if family not in FAMILIES:
        raise SpecError(f"toy/{family}: unknown family; known: {', '.join(FAMILIES)}")
    if split not in ("training", "evaluation"):
        raise SpecError(f"toy/{family}/{split}: unknown split; known: training, evaluation")
    spec = FAMILIES[family]
    stream = Stream("toy", family, split, seed, index)
    side = size or stream.choice(SIZES)
    palette = stream.sample(range(COLOURS), stream.between(*spec.colours))
    rules = spec.rules(stream, palette)
    if other_rule and len(rules) < 2:
        raise SpecError(f"toy/{family}: has one rule only, so that it has no control with another")
    train_rule = rules[1] if other_rule else rules[0]
    train: list[Pair] = []
    while len(train) < TRAIN_PAIRS:
        grid = _draw_grid(stream, palette, side, split)
        train.append(Pair(grid, train_rule(grid)))
    seen = set().union(*(pair.input.cells for pair in train))
    while True:
        grid = _draw_grid(stream, palette, side, split)
        if seen.issuperset(grid.cells):
            return Task(f"{family}-{index:06d}", tuple(train), (Pair(grid, rules[0](grid)),))


def _draw_grid(stream: Stream, palette: tuple[int, ...], side: int, split: str) -> Grid:
    while True:
        grid = Grid(side, side, bytes(stream.choice(palette) for _ in range(side * side)))
        if len(set(grid.cells)) > 1 and (canonical_bucket(grid, _EVALUATION_SHARE) == 0) == (split == "evaluation"):
            return grid

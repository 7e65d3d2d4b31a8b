"""Finds training pairs that equal evaluation pairs up to rotation, reflection and renaming of colours.

Two pairs are equal in this sense if one of the eight symmetries and one bijection of the colours, applied to input and
output alike, turn one into the other. With a fixed background, the bijection must keep colour 0. The evaluation side is
held in memory and training data streams past it, so memory does not grow with the training data. Two cheap invariants
(shapes and colour counts) rule out nearly all training pairs before the costly canonical form is computed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from harness.core.grid import COLOURS, Pair, Task
from harness.core.symmetry import SYMMETRIES, apply_symmetry, canonical_colours

LEAK_KINDS = ("same_task", "test_pair", "train_pair")
PairsById = Iterable[tuple[str, tuple[Pair, ...]]]
"""Task ids, each with all pairs of the task."""


def canonical_pair(pair: Pair, *, fixed_background: bool = False) -> bytes:
    """Return a key that is equal for two pairs if and only if a symmetry and a colour bijection map one to the other.

    The key is the least form of the pair: shapes, then cells with colours renamed in order of appearance, over the
    eight symmetries.

    Args:
        fixed_background: allow only bijections that keep colour 0.
    """
    assert pair.output is not None
    forms = []
    for name in SYMMETRIES:
        source, target = apply_symmetry(name, pair.input), apply_symmetry(name, pair.output)
        shape = bytes((source.height, source.width, target.height, target.width))
        forms.append((shape, source.cells + target.cells))
    least = min(shape for shape, _ in forms)
    return least + min(_rename_colours(cells, fixed_background) for shape, cells in forms if shape == least)


def _rename_colours(cells: bytes, fixed_background: bool) -> bytes:
    """Rename colours in order of appearance. A leading 0 takes the first new name, and so keeps colour 0."""
    return canonical_colours(b"\0" + cells) if fixed_background else canonical_colours(cells)


ShapeKey = tuple[tuple[int, int], tuple[int, int]]
ColourCountKey = tuple[tuple[int, int], ...]


def shape_key(pair: Pair) -> ShapeKey:
    """Return the shapes of input and output, equal for a pair and its transposition."""
    assert pair.output is not None
    one, two = pair.input.shape, pair.output.shape
    return min((one, two), (one[::-1], two[::-1]))


def colour_count_key(pair: Pair) -> ColourCountKey:
    """Return the sorted (cells in input, cells in output) of every colour, whatever the colours' names."""
    assert pair.output is not None
    source, target = pair.input.cells, pair.output.cells
    return tuple(sorted((source.count(c), target.count(c)) for c in range(COLOURS)))


@dataclass
class LeakFindings:
    """For each kind of leak, the evaluation ids that leak, each with the training ids in which it was found."""

    same_task: dict[str, set[str]] = field(default_factory=dict)
    """The training task has the same set of pairs."""
    test_pair: dict[str, set[str]] = field(default_factory=dict)
    """The training task contains a test pair of the evaluation task."""
    train_pair: dict[str, set[str]] = field(default_factory=dict)
    """The training task contains a train pair of the evaluation task."""

    def as_dict(self) -> dict[str, dict[str, list[str]]]:
        """Return, for each kind of leak, the evaluation ids with their training ids, sorted, for the JSON report."""
        return {kind: {key: sorted(names) for key, names in sorted(getattr(self, kind).items())} for kind in LEAK_KINDS}

    @property
    def leaked_eval_ids(self) -> set[str]:
        """Evaluation ids with any kind of leak."""
        return {name for kind in LEAK_KINDS for name in getattr(self, kind)}

    @property
    def leaking_train_ids(self) -> set[str]:
        """Training ids with any kind of leak."""
        return {name for kind in LEAK_KINDS for names in getattr(self, kind).values() for name in names}


class LeakDetector:
    """Finds pairs of training tasks in a set of evaluation tasks.

    Args:
        tasks: the evaluation tasks. Pairs without a known output cannot be compared.
        fixed_background: see ``canonical_pair``.

    Attributes:
        unknown_output_ids: ids of evaluation tasks with a test pair that could not be compared.
    """

    def __init__(self, tasks: Iterable[Task], *, fixed_background: bool = False) -> None:
        self.fixed_background = fixed_background
        self.unknown_output_ids: list[str] = []
        self._shapes: set[ShapeKey] = set()
        self._colour_counts: set[tuple[ShapeKey, ColourCountKey]] = set()
        self._train: dict[bytes, set[str]] = defaultdict(set)
        self._test: dict[bytes, set[str]] = defaultdict(set)
        self._pair_sets: dict[frozenset[bytes], set[str]] = defaultdict(set)
        for task in tasks:
            self._add_task(task)

    def _add_task(self, task: Task) -> None:
        """Add the canonical pairs of an evaluation task to the tables in which ``add_leaks`` looks them up."""
        keys: set[bytes] = set()
        for pairs, table in ((task.train, self._train), (task.test, self._test)):
            for pair in pairs:
                if pair.output is None:
                    continue
                key = canonical_pair(pair, fixed_background=self.fixed_background)
                table[key].add(task.id)
                keys.add(key)
                self._shapes.add(shape_key(pair))
                self._colour_counts.add((shape_key(pair), colour_count_key(pair)))
        if any(pair.output is None for pair in task.test):
            self.unknown_output_ids.append(task.id)
        else:
            self._pair_sets[frozenset(keys)].add(task.id)

    def add_leaks(self, name: str, pairs: tuple[Pair, ...], findings: LeakFindings) -> None:
        """Add to ``findings`` the leaks of one training task, given its id and all its pairs."""
        keys = [self._lookup_key(pair) for pair in pairs]
        matching = {key for key in keys if key is not None}
        if not matching:
            return
        for kind, table in ((findings.test_pair, self._test), (findings.train_pair, self._train)):
            for task in {task for key in matching for task in table.get(key, ())}:
                kind.setdefault(task, set()).add(name)
        if None not in keys:
            for task in self._pair_sets.get(frozenset(matching), ()):
                findings.same_task.setdefault(task, set()).add(name)

    def _lookup_key(self, pair: Pair) -> bytes | None:
        """Return the canonical form of a pair that occurs on the evaluation side, or None if it does not occur."""
        if pair.output is None or (shape := shape_key(pair)) not in self._shapes:
            return None
        if (shape, colour_count_key(pair)) not in self._colour_counts:
            return None
        key = canonical_pair(pair, fixed_background=self.fixed_background)
        return key if key in self._train or key in self._test else None


def merge_findings(parts: Iterable[LeakFindings]) -> LeakFindings:
    """Return the union of several findings."""
    total = LeakFindings()
    for part in parts:
        for kind in LEAK_KINDS:
            for task, names in getattr(part, kind).items():
                getattr(total, kind).setdefault(task, set()).update(names)
    return total

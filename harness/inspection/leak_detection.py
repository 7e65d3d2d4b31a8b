"""Leaks between training and evaluation data: the same pairs up to rotation, reflection and renaming of colours.

Two pairs are the same where one of the eight symmetries and one bijection of the colours, each used on input and output
alike, carry one into the other; with a fixed background, the bijection must keep colour 0. The evaluation side is
held in memory and the training side streams past it, so that memory does not grow with the training data. A
cheap invariant (shapes and colour counts) decides for nearly all training pairs that they match nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from harness.core.grid import COLOURS, Pair, Task
from harness.core.symmetry import SYMMETRIES, apply_symmetry, canonical_colours

LEAK_KINDS = ("same_task", "test_pair", "train_pair")
PairsById = Iterable[tuple[str, tuple[Pair, ...]]]


def canonical_pair(pair: Pair, *, fixed_background: bool = False) -> bytes:
    """A key equal for two pairs iff a symmetry and a colour bijection carry one into the other.

    Args:
        fixed_background: only bijections that keep colour 0 count.
    """
    assert pair.output is not None
    forms = []
    for name in SYMMETRIES:
        source, target = apply_symmetry(name, pair.input), apply_symmetry(name, pair.output)
        shape = bytes((source.height, source.width, target.height, target.width))
        forms.append((shape, source.cells + target.cells))
    least = min(shape for shape, _ in forms)
    return least + min(_renamed(cells, fixed_background) for shape, cells in forms if shape == least)


def _renamed(cells: bytes, fixed_background: bool) -> bytes:
    # A leading 0 takes the first new name in every form, and so keeps its own.
    return canonical_colours(b"\0" + cells) if fixed_background else canonical_colours(cells)


Shapes = tuple[tuple[int, int], tuple[int, int]]
Counts = tuple[tuple[int, int], ...]


def shapes(pair: Pair) -> Shapes:
    """The shapes of input and output, the same for a pair and its transposition."""
    assert pair.output is not None
    one, two = pair.input.shape, pair.output.shape
    return min((one, two), (one[::-1], two[::-1]))


def counts(pair: Pair) -> Counts:
    """How often colours occur in input and output, in order and so without the colours' names."""
    assert pair.output is not None
    source, target = pair.input.cells, pair.output.cells
    return tuple(sorted((source.count(c), target.count(c)) for c in range(COLOURS)))


@dataclass
class LeakFindings:
    """For each kind of leak the evaluation ids it concerns, each with the training ids where it was found."""

    same_task: dict[str, set[str]] = field(default_factory=dict)
    test_pair: dict[str, set[str]] = field(default_factory=dict)
    train_pair: dict[str, set[str]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, dict[str, list[str]]]:
        """The three kinds with ids in order, as in the JSON report."""
        return {kind: {key: sorted(found) for key, found in sorted(getattr(self, kind).items())} for kind in LEAK_KINDS}

    @property
    def leaked_eval_ids(self) -> set[str]:
        """Evaluation ids with any finding."""
        return {name for kind in LEAK_KINDS for name in getattr(self, kind)}

    @property
    def leaking_train_ids(self) -> set[str]:
        """Training ids with any finding."""
        return {name for kind in LEAK_KINDS for found in getattr(self, kind).values() for name in found}


class LeakDetector:
    """The evaluation side of an audit, asked about training data in any amount.

    Args:
        tasks: the evaluation tasks. Pairs without a known output are not compared; ``unknown_output_ids`` lists them.
        fixed_background: see ``canonical_pair``.
    """

    def __init__(self, tasks: Iterable[Task], *, fixed_background: bool = False) -> None:
        self.fixed_background = fixed_background
        self.unknown_output_ids: list[str] = []
        self._shapes: set[Shapes] = set()
        self._counts: set[tuple[Shapes, Counts]] = set()
        self._train: dict[bytes, set[str]] = defaultdict(set)
        self._test: dict[bytes, set[str]] = defaultdict(set)
        self._whole: dict[frozenset[bytes], set[str]] = defaultdict(set)
        for task in tasks:
            self._add(task)

    def _add(self, task: Task) -> None:
        whole: set[bytes] = set()
        for pairs, table in ((task.train, self._train), (task.test, self._test)):
            for pair in pairs:
                if pair.output is None:
                    continue
                key = canonical_pair(pair, fixed_background=self.fixed_background)
                table[key].add(task.id)
                whole.add(key)
                self._shapes.add(shapes(pair))
                self._counts.add((shapes(pair), counts(pair)))
        if any(pair.output is None for pair in task.test):
            self.unknown_output_ids.append(task.id)
        else:
            self._whole[frozenset(whole)].add(task.id)

    def find_leaks(self, material: PairsById) -> LeakFindings:
        """What of the evaluation tasks is found in training data, read once from beginning to end."""
        findings = LeakFindings()
        for name, pairs in material:
            self.add_leaks(name, pairs, findings)
        return findings

    def add_leaks(self, name: str, pairs: tuple[Pair, ...], findings: LeakFindings) -> None:
        """Add to ``findings`` what the pairs of one training task give away."""
        keys = [self._key(pair) for pair in pairs]
        found = {key for key in keys if key is not None}
        if not found:
            return
        for kind, table in ((findings.test_pair, self._test), (findings.train_pair, self._train)):
            for task in {task for key in found for task in table.get(key, ())}:
                kind.setdefault(task, set()).add(name)
        if None not in keys:
            for task in self._whole.get(frozenset(found), ()):
                findings.same_task.setdefault(task, set()).add(name)

    def _key(self, pair: Pair) -> bytes | None:
        """The canonical form of a pair that may occur on the evaluation side, None for one that cannot."""
        if pair.output is None or (shape := shapes(pair)) not in self._shapes:
            return None
        if (shape, counts(pair)) not in self._counts:
            return None
        key = canonical_pair(pair, fixed_background=self.fixed_background)
        return key if key in self._train or key in self._test else None


def merge_findings(parts: Iterable[LeakFindings]) -> LeakFindings:
    """LeakFindings of several training sets as one."""
    total = LeakFindings()
    for part in parts:
        for kind in LEAK_KINDS:
            for task, names in getattr(part, kind).items():
                getattr(total, kind).setdefault(task, set()).update(names)
    return total

"""One audit from specs to files: every training set against every evaluation set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from harness.audit import Auditor, Findings, Material, merge
from harness.datasets import Dataset, iterate
from harness.filecache import written_whole
from harness.grid import Task

Watch = Callable[[Dataset, Material], Material]
"""Wraps the training data while it is read, to show progress."""


@dataclass(frozen=True)
class Audit:
    """What an audit found, for one way of looking at the background."""

    train: tuple[Dataset, ...]
    evals: tuple[Dataset, ...]
    found: tuple[tuple[Findings, ...], ...]
    """``found[t][e]``: training set t against evaluation set e."""
    no_output: tuple[str, ...]
    """Evaluation tasks of which a test pair could not be compared, its output being unknown."""
    n_train: int
    """Training tasks read."""
    seconds: float

    def total(self) -> Findings:
        """All findings as one."""
        return merge(found for row in self.found for found in row)

    def clean_eval_ids(self, which: int) -> list[str]:
        """The ids of an evaluation set without any finding, in order."""
        leaked = merge(row[which] for row in self.found).leaked
        return [name for name in self.evals[which].ids if name not in leaked]

    def clean_train_ids(self, which: int) -> Iterator[str]:
        """The ids of a training set that share nothing with any evaluation set, in order."""
        leaking = merge(self.found[which]).leaking
        return (name for name in material_ids(self.train[which]) if name not in leaking)


def material_ids(dataset: Dataset) -> Sequence[str]:
    """The ids that ``material`` gives and ``#ids=`` takes: those of the rows, for virtual tasks."""
    from harness.barc import VirtualBarc

    return dataset.rows.ids if isinstance(dataset, VirtualBarc) else dataset.ids


def run_audit(
    train: Sequence[Dataset], evals: Sequence[Dataset], *, fixed_background: bool, watch: Watch | None = None
) -> Audit:
    """Read every training set once and look every one of its pairs up in all evaluation sets."""
    start = perf_counter()
    tasks: list[list[Task]] = [list(iterate(dataset)) for dataset in evals]
    auditors = [Auditor(some, fixed_background=fixed_background) for some in tasks]
    found = []
    n_train = 0
    for dataset in train:
        row = [Findings() for _ in evals]
        for name, pairs in watch(dataset, dataset.material()) if watch else dataset.material():
            n_train += 1
            for auditor, findings in zip(auditors, row, strict=True):
                auditor.look(name, pairs, findings)
        found.append(tuple(row))
    unknown = tuple(name for auditor in auditors for name in auditor.no_output)
    return Audit(tuple(train), tuple(evals), tuple(found), unknown, n_train, perf_counter() - start)


def write_clean_ids(audit: Audit, folder: Path) -> list[Path]:
    """``clean_ids.txt`` for the evaluation set and ``clean_train_ids.txt`` for the training set; numbered where several.

    An empty list is not written: it would select nothing.
    """
    written = []
    parts = (
        ("clean_ids", audit.clean_eval_ids, len(audit.evals)),
        ("clean_train_ids", audit.clean_train_ids, len(audit.train)),
    )
    for stem, ids, n in parts:
        for which in range(n):
            path = folder / (f"{stem}.txt" if n == 1 else f"{stem}.{which + 1}.txt")
            if text := "".join(f"{name}\n" for name in ids(which)):
                with written_whole(path) as file:
                    file.write(text.encode())
                written.append(path)
    return written

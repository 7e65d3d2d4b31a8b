"""One audit from specs to files: every training set against every evaluation set."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.core.files import atomic_writer
from harness.data.dataset import Dataset, iterate_tasks
from harness.data.spec import selectable_ids
from harness.inspection.leak_detection import LeakDetector, LeakFindings, PairsById, merge_findings

Watch = Callable[[Dataset, PairsById], PairsById]
"""Wraps the training data while it is read, to show progress."""


_LIST = re.compile(r"clean_(train_)?ids(\.[0-9]+)?\.txt")
BACKGROUNDS = ("free", "fixed")
"""Whether a bijection of colours may move colour 0."""


@dataclass(frozen=True)
class LeakAudit:
    """What an audit found with one way of looking at the background."""

    train: tuple[Dataset, ...]
    evals: tuple[Dataset, ...]
    found: tuple[tuple[LeakFindings, ...], ...]
    """``found[t][e]``: training set t against evaluation set e."""
    unknown_output_ids: tuple[str, ...]
    """Evaluation tasks of which a test pair could not be compared, its output being unknown."""
    n_train: int
    """Training tasks read."""

    def all_findings(self) -> LeakFindings:
        """All findings as one."""
        return merge_findings(found for row in self.found for found in row)

    def clean_eval_ids(self, which: int) -> list[str]:
        """The ids of an evaluation set without any finding, in order."""
        leaked_eval_ids = merge_findings(row[which] for row in self.found).leaked_eval_ids
        return [name for name in self.evals[which].ids if name not in leaked_eval_ids]

    def clean_train_ids(self, which: int) -> Iterator[str]:
        """The ids of a training set that share nothing with any evaluation set, in order."""
        leaking_train_ids = merge_findings(self.found[which]).leaking_train_ids
        return (name for name in selectable_ids(self.train[which]) if name not in leaking_train_ids)


def audit_datasets(
    train: Sequence[Dataset], evals: Sequence[Dataset], watch: Watch | None = None
) -> dict[str, LeakAudit]:
    """Read every training set once and look every pair of it up in all evaluation sets, for both of BACKGROUNDS."""
    tasks = [list(iterate_tasks(dataset)) for dataset in evals]
    auditors = {way: [LeakDetector(some, fixed_background=way == "fixed") for some in tasks] for way in BACKGROUNDS}
    found: dict[str, list[tuple[LeakFindings, ...]]] = {way: [] for way in BACKGROUNDS}
    n_train = 0
    for dataset in train:
        rows = {way: tuple(LeakFindings() for _ in evals) for way in BACKGROUNDS}
        for name, pairs in watch(dataset, dataset.pairs_by_id()) if watch else dataset.pairs_by_id():
            n_train += 1
            for way, row in rows.items():
                for auditor, findings in zip(auditors[way], row, strict=True):
                    auditor.add_leaks(name, pairs, findings)
        for way, row in rows.items():
            found[way].append(row)
    unknown = tuple(name for auditor in auditors["free"] for name in auditor.unknown_output_ids)
    return {way: LeakAudit(tuple(train), tuple(evals), tuple(found[way]), unknown, n_train) for way in BACKGROUNDS}


def write_clean_ids(audit: LeakAudit, folder: Path) -> tuple[list[Path], list[Path]]:
    """Write the ids without a finding, and remove the lists of earlier audits that this one does not write.

    ``clean_ids.txt`` is for the evaluation set, ``clean_train_ids.txt`` for the training set; numbered where several.
    An empty list is not written: it would select nothing.

    Returns:
        The files that were written, and those that were removed.
    """
    parts: list[tuple[str, Iterable[str]]] = []
    for stem, ids, n in (
        ("clean_ids", audit.clean_eval_ids, len(audit.evals)),
        ("clean_train_ids", audit.clean_train_ids, len(audit.train)),
    ):
        parts += [(f"{stem}.txt" if n == 1 else f"{stem}.{which + 1}.txt", ids(which)) for which in range(n)]
    written = []
    for name, names in parts:
        if text := "".join(f"{task}\n" for task in names):
            with atomic_writer(folder / name) as file:
                file.write(text.encode())
            written.append(folder / name)
    stale = [path for path in sorted(folder.glob("clean_*.txt")) if _LIST.fullmatch(path.name) and path not in written]
    for path in stale:
        path.unlink()
    return written, stale

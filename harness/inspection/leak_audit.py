"""Audits training sets against evaluation sets for leaks, and writes the ids of tasks without any."""

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
"""Yields a training set's pairs while it shows progress."""
_ID_LIST = re.compile(r"clean_(train_)?ids(\.[0-9]+)?\.txt")
BACKGROUNDS = ("free", "fixed")
"""Whether a bijection of colours may move colour 0 (``free``) or must keep it (``fixed``)."""


@dataclass(frozen=True)
class LeakAudit:
    """The findings of an audit for one of BACKGROUNDS."""

    train: tuple[Dataset, ...]
    evals: tuple[Dataset, ...]
    findings: tuple[tuple[LeakFindings, ...], ...]
    """``findings[t][e]`` compares training set t with evaluation set e."""
    unknown_output_ids: tuple[str, ...]
    """Evaluation tasks with a test pair that could not be compared, because its output is unknown."""
    n_train: int
    """Number of training tasks read."""

    def all_findings(self) -> LeakFindings:
        """Return the findings of all sets merged."""
        return merge_findings(findings for row in self.findings for findings in row)

    def clean_eval_ids(self, index: int) -> list[str]:
        """Return the ids of evaluation set ``index`` without any leak, in order."""
        leaked = merge_findings(row[index] for row in self.findings).leaked_eval_ids
        return [name for name in self.evals[index].ids if name not in leaked]

    def clean_train_ids(self, index: int) -> Iterator[str]:
        """Yield the ids of training set ``index`` that share no pair with any evaluation set, in order."""
        leaking = merge_findings(self.findings[index]).leaking_train_ids
        return (name for name in selectable_ids(self.train[index]) if name not in leaking)


def audit_datasets(
    train: Sequence[Dataset], evals: Sequence[Dataset], watch: Watch | None = None
) -> dict[str, LeakAudit]:
    """Compare every training set with every evaluation set, and return an audit for each of BACKGROUNDS.

    Every training set is read once; evaluation sets are held in memory.
    """
    tasks = [list(iterate_tasks(dataset)) for dataset in evals]
    detectors = {b: [LeakDetector(some, fixed_background=b == "fixed") for some in tasks] for b in BACKGROUNDS}
    findings: dict[str, list[tuple[LeakFindings, ...]]] = {background: [] for background in BACKGROUNDS}
    n_train = 0
    for dataset in train:
        for of_background in findings.values():
            of_background.append(tuple(LeakFindings() for _ in evals))
        for name, pairs in watch(dataset, dataset.pairs_by_id()) if watch else dataset.pairs_by_id():
            n_train += 1
            for background in BACKGROUNDS:
                for detector, of_set in zip(detectors[background], findings[background][-1], strict=True):
                    detector.add_leaks(name, pairs, of_set)
    unknown = tuple(name for detector in detectors["free"] for name in detector.unknown_output_ids)
    return {b: LeakAudit(tuple(train), tuple(evals), tuple(findings[b]), unknown, n_train) for b in BACKGROUNDS}


def write_clean_ids(audit: LeakAudit, folder: Path) -> tuple[list[Path], list[Path]]:
    """Write the ids without leaks to files for ``#ids=``, and remove those of earlier audits that are not rewritten.

    ``clean_ids.txt`` lists evaluation tasks, ``clean_train_ids.txt`` training tasks; with several sets the names are
    numbered from 1. An empty list is not written, because selecting no task is an error.

    Returns:
        The paths of the written files and those of the removed files.
    """
    parts: list[tuple[str, Iterable[str]]] = []
    for stem, ids, n in (
        ("clean_ids", audit.clean_eval_ids, len(audit.evals)),
        ("clean_train_ids", audit.clean_train_ids, len(audit.train)),
    ):
        parts += [(f"{stem}.txt" if n == 1 else f"{stem}.{i + 1}.txt", ids(i)) for i in range(n)]
    written = []
    for name, names in parts:
        if text := "".join(f"{task}\n" for task in names):
            with atomic_writer(folder / name) as file:
                file.write(text.encode())
            written.append(folder / name)
    existing = [path for path in sorted(folder.glob("clean_*.txt")) if _ID_LIST.fullmatch(path.name)]
    stale = [path for path in existing if path not in written]
    for path in stale:
        path.unlink()
    return written, stale

"""What ``bench data audit`` prints."""

from __future__ import annotations

from collections.abc import Iterator

from harness.data.dataset import Dataset
from harness.inspection.leak_audit import LeakAudit
from harness.inspection.leak_detection import LEAK_KINDS, LeakFindings

_TITLES = {
    "same_task": "same task (equal sets of pairs)",
    "test_pair": "test pair found in training",
    "train_pair": "train pair found in training",
}
_SHOWN = 12


def audit_lines(audits: dict[str, LeakAudit], background: str) -> Iterator[str]:
    """The counts of each training set against each evaluation set, and the ids where they are few."""
    chosen = audits[background]
    for t, train in enumerate(chosen.train):
        for e, evals in enumerate(chosen.evals):
            yield f"{_name(train)} -> {_name(evals)}, {len(evals.ids)} tasks"
            for kind in LEAK_KINDS:
                free, fixed = (len(getattr(audits[way].findings[t][e], kind)) for way in ("free", "fixed"))
                other = "" if free == fixed else f" ({fixed} with colour 0 fixed)"
                yield f"    {_TITLES[kind]}: {free}{other}"
                yield from _ids(chosen.findings[t][e], kind)
    if chosen.unknown_output_ids:
        yield (
            f"not compared: the test outputs of {len(chosen.unknown_output_ids)} evaluation tasks are unknown, "
            f"e.g. {chosen.unknown_output_ids[0]}"
        )
    leaked = chosen.all_findings().leaked_eval_ids
    yield f"{chosen.n_train} training tasks read; {len(leaked)} evaluation tasks have a finding"


def _name(dataset: Dataset) -> str:
    return dataset.spec if dataset.origin in dataset.spec else f"{dataset.spec} ({dataset.origin})"


def _ids(findings: LeakFindings, kind: str) -> Iterator[str]:
    found = findings.as_dict()[kind]
    for name in list(found)[:_SHOWN]:
        yield f"        {name} = {', '.join(found[name][:5])}{' ...' if len(found[name]) > 5 else ''}"
    if len(found) > _SHOWN:
        yield f"        ... and {len(found) - _SHOWN} more; --json FILE lists all"

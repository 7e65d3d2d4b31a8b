"""The text that ``bench data audit`` prints."""

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
_SHOWN_TASKS = 12
_SHOWN_MATCHES = 5


def audit_lines(audits: dict[str, LeakAudit], background: str) -> Iterator[str]:
    """Yield the lines of an audit: for each pair of training and evaluation set the counts, and the first ids.

    Args:
        audits: by the treatment of colour 0, ``free`` and ``fixed``.
        background: the treatment whose ids are listed.
    """
    chosen = audits[background]
    for t, train in enumerate(chosen.train):
        for e, evals in enumerate(chosen.evals):
            yield f"{_name(train)} -> {_name(evals)}, {len(evals.ids)} tasks"
            for kind in LEAK_KINDS:
                free, fixed = (len(getattr(audits[colour_0].findings[t][e], kind)) for colour_0 in ("free", "fixed"))
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
    """Return the dataset's spec, with its origin if the spec does not contain it."""
    return dataset.spec if dataset.origin in dataset.spec else f"{dataset.spec} ({dataset.origin})"


def _ids(findings: LeakFindings, kind: str) -> Iterator[str]:
    matches = findings.as_dict()[kind]
    for task in list(matches)[:_SHOWN_TASKS]:
        cut = " ..." if len(matches[task]) > _SHOWN_MATCHES else ""
        yield f"        {task} = {', '.join(matches[task][:_SHOWN_MATCHES])}{cut}"
    if len(matches) > _SHOWN_TASKS:
        yield f"        ... and {len(matches) - _SHOWN_TASKS} more; --json FILE lists all"

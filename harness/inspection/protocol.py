"""Say what a model was trained on, compared with the tasks on which it is benched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.core.errors import ArcBenchError, DataError
from harness.core.grid import Task
from harness.data.spec import open_dataset
from harness.inspection.leak_detection import LeakDetector, LeakFindings
from harness.runs.schemas.task_training import Protocol, ProtocolLabel

_BASE = "the base model's own training is not covered"


@dataclass(frozen=True)
class TrainingData:
    """The datasets on which a model was trained.

    Args:
        digests: by spec, the digest that the dataset had then.
        unknown: why further data are not known; None if these are all.
    """

    digests: Mapping[str, str]
    unknown: str | None = None


def derive_protocol(tasks: Sequence[Task], data: TrainingData, *, at_test_time: bool) -> Protocol:
    """Return what a model was trained on, from the pairs of its training datasets (as ``bench data audit``).

    A pair of a dataset counts if a symmetry and a renaming of the colours turn it into one of the tasks' pairs. What
    the base model was trained on is not covered.

    Args:
        tasks: on which the model is benched.
        at_test_time: whether the model was also trained on the train pairs of these tasks.
    """
    clean: ProtocolLabel = "demonstrations of these tasks at test time" if at_test_time else "nothing of these tasks"
    specs = list(data.digests)
    try:
        leaked = len(_find_leaks(tasks, data.digests).leaked_eval_ids)
    except ArcBenchError as error:
        reason = f"a training dataset cannot be compared with the tasks: {error}"
        return Protocol(label="not known", trained_on=specs, leaked_tasks=0, reason=reason)
    compared = f"{leaked} of {len(tasks)} tasks have a pair in {', '.join(specs)}" if specs else ""
    label: ProtocolLabel = "these tasks" if leaked else clean if data.unknown is None else "not known"
    start = compared or ("" if data.unknown else "training starts from the base model")
    reason = "; ".join(part for part in (start, data.unknown, _BASE) if part)
    return Protocol(label=label, trained_on=specs, leaked_tasks=leaked, reason=reason)


def _find_leaks(tasks: Sequence[Task], digests: Mapping[str, str]) -> LeakFindings:
    """Return the leaks of training datasets into tasks.

    Raises:
        ArcBenchError: a dataset cannot be opened, or is not what it was when the model was trained.
    """
    detector, findings = LeakDetector(tasks), LeakFindings()
    for spec, digest in digests.items():
        dataset = open_dataset(spec)
        if dataset.digest() != digest:
            raise DataError(f"{spec} has changed since")
        for name, pairs in dataset.pairs_by_id():
            detector.add_leaks(name, pairs, findings)
    return findings

"""The tasks that a run declared, read from its dataset again and compared with what was sampled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.core.errors import DataError, format_ids
from harness.core.grid import Task
from harness.data.dataset import SHOWN_DIGITS, Dataset, content_digest, without_test_outputs
from harness.data.spec import open_dataset
from harness.runs.schemas.manifest_schema import Manifest


def declared_tasks(manifest: Manifest) -> list[Task]:
    """Read the tasks of a run from its dataset.

    A task is accepted if its content is what the run sampled, with the test outputs or without: outputs that were
    unknown then may be known now.

    Raises:
        DataError: the dataset lacks a task of the run, or its content has changed.
    """
    config = manifest.config
    dataset = open_dataset(config.dataset)
    if manifest.task_digests is None and dataset.digest() != config.dataset_digest:
        raise DataError(
            f"dataset {config.dataset} has digest {dataset.digest()}, but the run sampled {config.dataset_digest}: "
            "its content changed since; score against the original"
        )
    tasks = select_tasks(dataset, config.task_ids)
    if manifest.task_digests is not None:
        check_unchanged(config.dataset, tasks, dict(zip(config.task_ids, manifest.task_digests, strict=True)))
    return tasks


def check_unchanged(spec: str, tasks: Sequence[Task], digests: Mapping[str, str], owner: str = "run") -> None:
    """Check that tasks have the content that they had when they were sampled, with the test outputs or without.

    Args:
        spec: the dataset of the tasks, for the message.
        digests: by task id, the ``content_digest`` that the manifest records.
        owner: what has the manifest, for the message.

    Raises:
        DataError: some have another content, with the ids.
    """
    changed = [t.id for t in tasks if digests[t.id] not in (content_digest(t), content_digest(without_test_outputs(t)))]
    if changed:
        raise DataError(
            f"dataset {spec}: of the {owner}'s {len(tasks)} tasks {format_ids(changed)} have another content "
            f"than the {owner} sampled: its content changed since; score against the original"
        )


def check_same_tasks(path: Path, digests: Mapping[str, str], tasks: Sequence[Task], spec: str) -> None:
    """Check that another dataset has the same tasks under the same ids, as far as prompts show them.

    Args:
        path: the run or pool that answers them, for the message.
        digests: by task id, the ``content_digest`` of the tasks that were answered, or its first SHOWN_DIGITS.
        tasks: of the other dataset, which may have more or fewer.

    Raises:
        DataError: an id names another task in the other dataset.
    """
    shown = {task: digest[:SHOWN_DIGITS] for task, digest in digests.items()}
    changed = [t.id for t in tasks if t.id in shown and content_digest(t)[:SHOWN_DIGITS] != shown[t.id]]
    if changed:
        raise DataError(
            f"{path} was asked other tasks than {spec} has under the ids {format_ids(changed)}: its answers say "
            "nothing about them"
        )


def select_tasks(dataset: Dataset, ids: Sequence[str]) -> list[Task]:
    """Return the tasks with these ids, in this order; if the dataset has the same order, it is read once.

    Raises:
        DataError: the dataset lacks some.
    """
    indices: list[int] = []
    for index, task_id in enumerate(dataset.ids):
        if len(indices) == len(ids):
            break
        if task_id == ids[len(indices)]:
            indices.append(index)
    if len(indices) < len(ids):  # the dataset's order has changed
        index_of = {task_id: index for index, task_id in enumerate(dataset.ids)}
        if missing := [task_id for task_id in ids if task_id not in index_of]:
            raise DataError(
                f"dataset {dataset.spec}: of the {len(ids)} tasks that were asked {format_ids(missing)} are not there: "
                "its content changed since; score against the original"
            )
        indices = [index_of[task_id] for task_id in ids]
    return [dataset.task(index) for index in indices]

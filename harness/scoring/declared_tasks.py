"""The tasks that a run declared, read from its dataset again and compared with what was sampled."""

from __future__ import annotations

from collections.abc import Sequence

from harness.core.errors import DataError, format_ids
from harness.core.grid import Task
from harness.data.dataset import Dataset, content_digest, without_test_outputs
from harness.data.spec import open_dataset
from harness.runs.schema import Manifest


def declared_tasks(manifest: Manifest) -> list[Task]:
    """Return the tasks that a run declared, read from its dataset again.

    Raises:
        DataError: they are not what the run sampled. Test outputs that were not known then may be known now.
    """
    config = manifest.config
    dataset = open_dataset(config.dataset)
    if manifest.task_digests is None and dataset.digest() != config.dataset_digest:
        raise DataError(
            f"dataset {config.dataset} has digest {dataset.digest()}, but the run sampled {config.dataset_digest}: "
            "its content changed since; score against the original"
        )
    tasks = named_tasks(dataset, config.task_ids)
    if manifest.task_digests is not None:
        sampled = dict(zip(config.task_ids, manifest.task_digests, strict=True))
        changed = [
            t.id for t in tasks if sampled[t.id] not in (content_digest(t), content_digest(without_test_outputs(t)))
        ]
        if changed:
            raise DataError(
                f"dataset {config.dataset}: of the run's {len(tasks)} tasks {format_ids(changed)} have another content "
                "than the run sampled: its content changed since; score against the original"
            )
    return tasks


def named_tasks(dataset: Dataset, ids: Sequence[str]) -> list[Task]:
    """Return the tasks with these ids, in that order; a dataset that has them in the same order is read no further.

    Raises:
        DataError: the dataset lacks some.
    """
    places: list[int] = []
    for index, name in enumerate(dataset.ids):
        if len(places) == len(ids):
            break
        if name == ids[len(places)]:
            places.append(index)
    if len(places) < len(ids):  # in another order by now
        known = {name: index for index, name in enumerate(dataset.ids)}
        if missing := [name for name in ids if name not in known]:
            raise DataError(
                f"dataset {dataset.spec}: of the run's {len(ids)} tasks {format_ids(missing)} are not there: its "
                "content changed since; score against the original"
            )
        places = [known[name] for name in ids]
    return [dataset.task(index) for index in places]

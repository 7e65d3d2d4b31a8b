"""The datasets that can be opened by name: what ``bench data list`` prints."""

from __future__ import annotations

from dataclasses import dataclass

from harness.data.barc_download import BARC_FILES, local_file
from harness.data.dataset import Dataset, content_digest, iterate_tasks
from harness.data.spec import ARC_SPECS, KAGGLE_SPECS, open_dataset
from harness.data.toy_tasks import FAMILIES


@dataclass(frozen=True, slots=True)
class NamedDataset:
    """One entry of ``bench data list``."""

    spec: str
    tasks: int | None
    """Number of tasks; None for generated families, which have any number, and for BARC."""
    test_outputs: int | None
    """Number of test outputs; None as for ``tasks``."""
    note: str
    version_of: str | None = None
    """The spec of the same tasks in the version that is the default here; None for other datasets."""
    differing_tasks: tuple[str, ...] = ()
    """Ids of the tasks that differ from those of ``version_of`` in any grid, or that one of the two lacks."""


def _default_version(spec: str) -> str | None:
    """Return the spec of which a spec is another version."""
    version, split = spec.split("/")
    return None if spec in ARC_SPECS else f"{'arc2' if version == 'kaggle2025' else 'arc1'}/{split}"


def differing_tasks(first: Dataset, second: Dataset) -> tuple[str, ...]:
    """Return the sorted ids of the tasks that differ between two datasets, or that only one of them has."""
    digests = [{task.id: content_digest(task) for task in iterate_tasks(dataset)} for dataset in (first, second)]
    ids = sorted({*digests[0], *digests[1]})
    return tuple(name for name in ids if digests[0].get(name) != digests[1].get(name))


def named_datasets() -> list[NamedDataset]:
    """Return the bundled ARC sets in all versions with their counts, the generated families, and BARC's datasets.

    The note of a BARC dataset says which of its files are missing on this machine.
    """
    entries = []
    for spec in (*ARC_SPECS, *KAGGLE_SPECS):
        dataset = open_dataset(spec)
        outputs = sum(len(task.test) for task in iterate_tasks(dataset))
        default = _default_version(spec)
        ids = () if default is None else differing_tasks(dataset, open_dataset(default))
        note = dataset.origin
        if default is not None:
            count = f"{len(ids)} task{'s' if len(ids) > 1 else ''}"
            note += f"; differs from {default} in {count}: {' '.join(ids)}" if ids else f"; equals {default}"
        entries.append(NamedDataset(spec, len(dataset.ids), outputs, note, default, ids))
    for family in FAMILIES.values():
        entries.append(NamedDataset(f"toy/{family.name}", None, None, f"generated: {family.summary}"))
    for repo, names in BARC_FILES.items():
        missing = [name for name in names if local_file(repo, name) is None]
        note = f"not here yet: {', '.join(missing)} (bench data fetch barc)" if missing else "on this machine"
        entries.append(NamedDataset(repo, None, None, note))
    return entries

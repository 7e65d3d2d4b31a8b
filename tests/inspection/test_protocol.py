"""What a model was trained on, compared with the tasks on which it is benched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.core.grid import Task
from harness.data.dataset import iterate_tasks
from harness.data.spec import open_dataset
from harness.inspection.protocol import TrainingData, derive_protocol


def tasks_of(spec: str) -> list[Task]:
    """Return the tasks of a dataset."""
    return list(iterate_tasks(open_dataset(spec)))


def data_of(*specs: str, unknown: str | None = None) -> TrainingData:
    """Return datasets as they are now."""
    return TrainingData({spec: open_dataset(spec).digest() for spec in specs}, unknown)


TASKS = tasks_of("toy/recolour/evaluation#n=4")


def test_a_start_from_the_base_saw_demonstrations_at_test_time_only() -> None:
    protocol = derive_protocol(TASKS, data_of(), at_test_time=True)
    assert protocol.label == "demonstrations of these tasks at test time"
    assert "base model" in protocol.reason


@pytest.mark.parametrize(
    ("at_test_time", "label"),
    [(True, "demonstrations of these tasks at test time"), (False, "nothing of these tasks")],
)
def test_training_data_without_their_pairs(at_test_time: bool, label: str) -> None:
    protocol = derive_protocol(TASKS, data_of("arc1/training"), at_test_time=at_test_time)
    assert (protocol.label, protocol.leaked_tasks) == (label, 0)


@pytest.mark.parametrize("at_test_time", [True, False])
def test_training_data_with_a_rotated_and_recoloured_test_pair(tmp_path: Path, at_test_time: bool) -> None:
    tasks = tasks_of("arc1/evaluation#n=5")
    pair = tasks[2].test[0]
    assert pair.output is not None
    rows = [
        [[(cell + 3) % 10 for cell in row] for row in reversed(grid.to_rows())] for grid in (pair.input, pair.output)
    ]
    file = tmp_path / "leak_challenges.json"
    pairs = [{"input": rows[0], "output": rows[1]}]
    file.write_text(json.dumps({"copied": {"train": pairs, "test": pairs}}))
    data = data_of("toy/copy#n=2", str(file), unknown="more is lost")
    protocol = derive_protocol(tasks, data, at_test_time=at_test_time)
    assert (protocol.label, protocol.leaked_tasks) == ("these tasks", 1)
    assert "1 of 5 tasks" in protocol.reason


def test_what_is_not_known_is_said(tmp_path: Path) -> None:
    lost = derive_protocol(TASKS, data_of("toy/copy#n=2", unknown="its data are lost"), at_test_time=True)
    assert lost.label == "not known"
    assert "0 of 4 tasks have a pair in toy/copy#n=2; its data are lost" in lost.reason
    gone = derive_protocol(TASKS, TrainingData({str(tmp_path / "gone"): "0"}), at_test_time=True)
    assert gone.label == "not known"
    assert "cannot be compared" in gone.reason
    changed = derive_protocol(TASKS, TrainingData({"toy/copy#n=2": "0" * 16}), at_test_time=True)
    assert changed.label == "not known"
    assert "toy/copy#n=2 has changed since" in changed.reason

"""The page of the evidence on test-time training is written from run folders, and holds what was run so far."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.test_time.curve import METRICS, Curve
from benchmarks.test_time.evidence import REAL, SCHEDULES, Experiment, Extent
from benchmarks.test_time.evidence_page import page
from harness.runs.folder import RunFolder
from harness.runs.logs.task_training_log import TTT_LOG, TrainingLog
from harness.runs.schemas.task_training import TaskRecord
from tests.support.runs.run_folders import write_run

EXTENT = Extent(("cross",), tasks=40, real_tasks=4, views=4, repeats=1)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """Write runs of one family that training solves, and of real tasks that nothing solves."""
    experiment = Experiment(tmp_path_factory.mktemp("evidence"), EXTENT)
    for data, gain in (("cross", 1.0), (REAL, 0.0)):
        for kind, model, skill in (("base", "tiny-base", 0.0), ("ttt", "ttt", gain)):
            folder = experiment.folder(data, kind)
            folder.parent.mkdir(exist_ok=True)
            write_run(folder.parent, folder.name, experiment.spec(data), {model: skill}, n=EXTENT.views)
            (folder / "results.json").touch()
        for task_id in RunFolder(folder).manifest().config.task_ids:
            TrainingLog(folder / TTT_LOG).append(record(task_id))
    return experiment


def record(task_id: str) -> TaskRecord:
    """Return the record of a task that was trained for 8 seconds."""
    return TaskRecord(
        task_id=task_id, outcome="trained", adapter=None, digest="0" * 64, steps=30, samples=240, train_seconds=8.0,
        reason=None, answered_by="ttt@0", own_adapter=True, sample_seconds=0.5,
    )  # fmt: skip


def test_the_page_has_tables_gates_and_schedules(experiment: Experiment) -> None:
    text = page(experiment)
    assert "### cross: 40 tasks" in text
    assert "### real: 4 tasks" in text
    assert "A task took 8.0 s to train with one thread (8.0 to 8.0) and 0.5 s to answer; 40 trained." in text
    assert "bench gate cross-ttt --baseline cross-base --min-gain 0.5" in text
    assert "(exit status 0)" in text
    assert "### Schedules" not in text
    for task_id in RunFolder(experiment.folder(REAL, "ttt")).manifest().config.task_ids:
        assert f"| {task_id} |" in text


def test_schedules_are_shown_once_they_are_measured(experiment: Experiment) -> None:
    for schedule, wall in zip(SCHEDULES, (120.0, 90.0), strict=True):
        path = experiment.schedule_file(schedule, 0)
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"wall": wall, "cpu": 150.0, "memory": 900.0}))
    text = page(experiment)
    for cells in ("train-first", "resident", "120", "90"):
        assert cells in text.partition("### Schedules")[2]


def test_runs_that_are_missing_are_left_out(tmp_path: Path) -> None:
    text = page(Experiment(tmp_path, EXTENT))
    assert "###" not in text
    assert "What is missing was not run." in text


def test_the_curve_shows_every_number_of_steps() -> None:
    metric = {"value": 0.5, "low": 0.4, "high": 0.6, "method": "bca", "per_output": 0.5, "strict": None}
    lines = {n: {"train": 0.25 * n, "sample": 1.0, **dict.fromkeys(METRICS, metric)} for n in (0, 5, 10, 20)}
    curve = Curve("toy/cross/evaluation#n=10", lines)
    rows = curve.table().splitlines()
    assert len(rows) == 2 + len(lines)
    assert "50.0 % [40.0, 60.0]" in rows[-1]
    assert curve.growth.sizes == (5.0, 10.0, 20.0)
    assert curve.growth.power == pytest.approx(1.0)

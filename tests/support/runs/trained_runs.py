"""Folders of runs with test-time training, and of the base without it, made without a trainer."""

from __future__ import annotations

from pathlib import Path

from harness.runs.folder import RunFolder
from harness.runs.logs.task_training_log import TTT_LOG, TrainingLog
from harness.runs.schemas.task_training import Protocol, TaskRecord, TttConfig
from tests.support.runs.run_folders import MakeRun, edit_manifest

SPEC = "toy/cross/evaluation#n=20"
BASE = "b" * 16
PROTOCOL = Protocol(
    label="demonstrations of these tasks at test time", trained_on=[], leaked_tasks=0, reason="a start from the base"
)


def record(task_id: str, **changes: object) -> TaskRecord:
    """Return the line of a trained task."""
    fields: dict[str, object] = {
        "task_id": task_id,
        "outcome": "trained",
        "adapter": f"adapters/{task_id}",
        "digest": "0" * 64,
        "steps": 8,
        "samples": 64,
        "train_seconds": 2.0,
        "reason": None,
        "answered_by": f"ttt-{task_id}@000000000000",
        "own_adapter": True,
        "sample_seconds": 1.0,
    }
    return TaskRecord.model_validate(fields | changes)


def trained_run(make_run: MakeRun, name: str, skill: float, seconds: float, **protocol: object) -> Path:
    """Return the folder of a run with test-time training; one task has no adapter."""
    run = make_run(name, SPEC, {name: skill})
    config = TttConfig(recipe={"learning_rate": 0.004}, base=BASE, start=None)
    edit_manifest(run, ttt=config)
    folder = RunFolder(run)
    manifest = folder.manifest()
    answered = {name: [f"ttt-{k}@{k:012d}" for k in range(20)]}
    folder.write_manifest(
        manifest.model_copy(update={"protocol": PROTOCOL.model_copy(update=protocol), "answered_as": answered})
    )
    log = TrainingLog(run / TTT_LOG)
    for task_id in manifest.config.task_ids:
        log.append(record(task_id, train_seconds=seconds, sample_seconds=2.0))
    log.append(record(manifest.config.task_ids[0], outcome="not_finite", own_adapter=False, train_seconds=seconds))
    return run


def base_run(make_run: MakeRun) -> Path:
    """Return the folder of the base's run."""
    run = make_run("tiny-base", SPEC, {"tiny-base": 0.02})
    (model,) = RunFolder(run).manifest().config.models
    edit_manifest(run, models=[model.model_copy(update={"hash": BASE})])
    return run

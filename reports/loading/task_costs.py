"""What each model of a section costs for a task: seconds of test-time training and of answering."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from statistics import fmean

from harness.runs.schema import Manifest
from reports.loading.loaded_run import LoadedRun
from reports.loading.runs import Section


@dataclass(frozen=True)
class TaskCost:
    """Mean seconds that a model takes for a task: to train on it, and to answer it; None if unknown."""

    train: float
    sample: float | None

    @property
    def total(self) -> float | None:
        """Both together."""
        return None if self.sample is None else self.train + self.sample


def has_test_time_training(section: Section) -> bool:
    """Return whether a model of a section was trained at test time."""
    return any(run.manifest.config.ttt is not None for run in section.runs)


def task_costs(section: Section) -> dict[str, TaskCost]:
    """Return what each model of a section costs for a task."""
    return {model: _task_cost(run) for model, run, _ in section.models_with_runs()}


def _task_cost(run: LoadedRun) -> TaskCost:
    if run.trained_tasks:
        records = run.trained_tasks.values()
        return TaskCost(fmean(r.train_seconds for r in records), fmean(r.sample_seconds for r in records))
    manifest = run.manifest
    if manifest.finished is None or manifest.resumed or len(manifest.config.models) > 1:
        return TaskCost(0.0, None)
    return TaskCost(0.0, _wall_seconds(manifest) / max(1, len(manifest.config.task_ids)))


def _wall_seconds(manifest: Manifest) -> float:
    assert manifest.finished is not None
    return (datetime.fromisoformat(manifest.finished) - datetime.fromisoformat(manifest.started)).total_seconds()

"""What each model of a section costs for a task: seconds of test-time training and of answering."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from statistics import fmean

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
    return {model: task_cost(run, name) for model, run, name in section.models_with_runs()}


def task_cost(run: LoadedRun, model: str) -> TaskCost:
    """Return what a model of a run costs for a task.

    The wall time of a run of several models, which are served at the same time, is divided among them by the seconds
    of their requests.
    """
    if run.trained_tasks:
        records = run.trained_tasks.values()
        return TaskCost(fmean(r.train_seconds for r in records), fmean(r.sample_seconds for r in records))
    seconds, share = wall_seconds(run), _time_share(run, model)
    return TaskCost(0.0, None if seconds is None or share is None else seconds * share / len(run.tasks))


def wall_seconds(run: LoadedRun) -> float | None:
    """Return how long a run took; None if it was interrupted or its times are unknown."""
    manifest = run.manifest
    if manifest.finished is None or manifest.resumed:
        return None
    seconds = (datetime.fromisoformat(manifest.finished) - datetime.fromisoformat(manifest.started)).total_seconds()
    return seconds if seconds > 0 else None


def _time_share(run: LoadedRun, model: str) -> float | None:
    """Return a model's share of the seconds of a run's requests; None if it is unknown."""
    if model not in run.cost:
        return None
    if len(run.cost) == 1:
        return 1.0
    total = math.fsum(cost.seconds for cost in run.cost.values())
    return run.cost[model].seconds / total if total else None

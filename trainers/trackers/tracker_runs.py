"""Note which runs of experiment trackers a training reports to, for its manifest. Imports transformers."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

from harness.runs.schemas.tracker_run import TrackerRun
from harness.trackers.redaction import run_without_secrets
from trainers.recipe.schema import Recipe

logger = logging.getLogger(__name__)


class NoteTrackerRuns(TrainerCallback):  # type: ignore[misc]  # transformers is not followed by mypy
    """Callback that asks every tracker of ``report_to`` for its current run, after transformers has started it."""

    def __init__(self, recipe: Recipe) -> None:
        self.runs: dict[str, TrackerRun] = {}
        self._trackers, self._name = recipe.report_to, recipe.output_dir.name

    def on_train_begin(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Note the runs on the first process; a tracker that does not tell is left out with a warning."""
        if not state.is_world_process_zero:
            return
        for tracker in self._trackers:
            try:
                run = run_without_secrets(_CURRENT_RUN[tracker]())
            except Exception as error:  # noqa: BLE001  # the training matters more than the link to it
                logger.warning("the manifest will not say where %s has this training: %s", tracker, error)
                continue
            self.runs[tracker] = run.model_copy(update={"name": run.name or self._name})


def noted_tracker_runs(trainer: Any) -> dict[str, TrackerRun] | None:
    """Return the runs that were noted while this trainer trained, by tracker; None without ``report_to``."""
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, NoteTrackerRuns):
            return callback.runs
    return None


def _wandb_run() -> TrackerRun:
    import wandb

    run: Any = wandb.run
    return TrackerRun(id=run.id, name=run.name or None, project=run.project, url=run.url or None)


def _trackio_run() -> TrackerRun:
    from trackio import context_vars

    run = context_vars.current_run.get()
    return TrackerRun(id=run.id, name=run.name, project=run.project, url=run.url or None)


def _mlflow_run() -> TrackerRun:
    import mlflow

    from harness.trackers.mlflow_adapter import run_page

    info = mlflow.active_run().info
    url = run_page(info.experiment_id, info.run_id)
    return TrackerRun(id=info.run_id, name=info.run_name, project=info.experiment_id, url=url)


def _tensorboard_run() -> TrackerRun:
    return TrackerRun(id=os.environ["TENSORBOARD_LOGGING_DIR"])


_CURRENT_RUN: dict[str, Callable[[], TrackerRun]] = {
    "wandb": _wandb_run,
    "trackio": _trackio_run,
    "mlflow": _mlflow_run,
    "tensorboard": _tensorboard_run,
}

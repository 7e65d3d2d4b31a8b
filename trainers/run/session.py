"""Run one training session: from the newest checkpoint to the finished folder. Imports torch."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from harness.runs.schemas.manifest_schema import SourceFileRecord
from trainers.data.hf_dataset import MixtureDataset
from trainers.model.inputs import RecipeInputs
from trainers.recipe.extras import reporter_environment
from trainers.recipe.launcher_environment import is_first_process
from trainers.recipe.schema import Recipe
from trainers.run.build import build_trainer
from trainers.run.errors import explain_training_errors, explain_write_errors
from trainers.run.finish import finish_folder, kept_step
from trainers.run.load import load_setup
from trainers.run.progress import Progress
from trainers.run.stop import StopSignal
from trainers.run.trainer import ArcTrainer, RunOutputs
from trainers.store.best_step import find_best_validation, patience_exhausted
from trainers.store.checkpoints import best_weights_folder, newest_complete, read_log_history, remove_later_steps
from trainers.store.digests import DIGESTS_FILE
from trainers.store.manifest import LOG
from trainers.store.run_folder import CHECKPOINTS
from trainers.store.training_log import TrainingLog
from trainers.trackers.tracker_runs import noted_tracker_runs


def run_session(inputs: RecipeInputs, output: Path, *, progress: bool, files: Sequence[SourceFileRecord] = ()) -> None:
    """Train from the newest complete checkpoint, or from the start, and finish the folder.

    Args:
        files: the files of a recipe that extends another one, for the manifest.

    Raises:
        ConfigError, DataError, RunError, TrainingStopped: see ``trainers.run.api.train``.
    """
    recipe, folder = inputs.recipe, output / CHECKPOINTS
    first = is_first_process()
    checkpoint = newest_complete(folder) if recipe.resume else None
    start = int(checkpoint.name.split("-")[1]) if checkpoint else 0
    last = start if checkpoint and _had_stopped_early(recipe, checkpoint) else recipe.max_steps
    bar = Progress(recipe.max_steps, recipe.logging_steps, progress and first)
    with explain_training_errors(recipe), reporter_environment(recipe, output), bar as progress_bar:
        setup = load_setup(inputs, recipe.model_copy(update={"max_steps": last}), folder)
        if first:
            remove_later_steps(folder, start)
        if setup.validation is not None and setup.validation.skipped:
            progress_bar.print_note(setup.validation.as_text())
        with StopSignal() as stop, TrainingLog(output / LOG, start) if first else nullcontext() as log:
            rows = MixtureDataset.from_mixture(setup.mixture, range(last * recipe.batch_size))
            trainer = build_trainer(setup, rows, outputs=RunOutputs(log, progress_bar), stop=stop)
            if checkpoint:
                progress_bar.print_note(f"resuming after step {start}")
            if log is not None and log.missing:  # no error: the weights are exact all the same
                progress_bar.print_note(
                    f"warning: {log.path} has no lines of {log.missing} of the {start} steps before; its loss curve "
                    "and the manifest's counts of samples and tokens lack them"
                )
            progress_bar.start_at(start)
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        stop.check_finished(recipe.max_steps)
        with explain_write_errors("the result", output):
            _write_result(trainer, recipe, output)
            if first:
                step, reported = trainer.state.global_step, noted_tracker_runs(trainer)
                manifest = finish_folder(inputs, setup.mixture, output, step, files, reported)
                for record in manifest.datasets:
                    progress_bar.print_note(record.as_text())


def _write_result(trainer: ArcTrainer, recipe: Recipe, output: Path) -> None:
    """Write the last weights or those of the best validation, as the recipe says; all processes must take part."""
    if recipe.validation is None or recipe.validation.keep == "last":
        trainer.write_weights(output)
    elif trainer.args.should_save:
        step = kept_step(trainer.state.log_history, recipe.validation, trainer.state.global_step)
        best = best_weights_folder(output / CHECKPOINTS, step)
        shutil.copytree(best, output, dirs_exist_ok=True, ignore=shutil.ignore_patterns(DIGESTS_FILE))


def _had_stopped_early(recipe: Recipe, checkpoint: Path) -> bool:
    """Return whether early stopping had ended training at a checkpoint.

    Raises:
        RunError: the best weights that belong to the checkpoint are missing or damaged.
    """
    part = recipe.validation
    best = find_best_validation(read_log_history(checkpoint), part) if part else None
    if part is None or best is None:
        return False
    if part.keep == "best":
        best_weights_folder(checkpoint.parent, best.step)
    return patience_exhausted(best, part)

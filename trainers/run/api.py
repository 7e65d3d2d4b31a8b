"""Train a recipe into an adapter folder, or try it out; heavy packages are imported only then."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.core.errors import ConfigError
from harness.runs.schemas.manifest_schema import SourceFileRecord
from trainers.model.base_model import check_weights, find_base
from trainers.model.inputs import RecipeInputs, open_inputs, require_datasets
from trainers.model.lora import check_lora
from trainers.recipe.extras import check_optional_packages, require_train_extra
from trainers.recipe.launcher_environment import is_first_process, remove_launcher_variables
from trainers.recipe.schema import Recipe
from trainers.store.run_folder import lock_folder, prepare_folder

if TYPE_CHECKING:
    from trainers.run.dry_run import DryRun


def train(recipe: Recipe, output: Path, *, progress: bool = True, files: Sequence[SourceFileRecord] = ()) -> Path:
    """Train a recipe into the folder ``output`` and return it.

    A folder with the finished result of the same recipe is returned at once, with a line on stderr. An unfinished run
    is resumed from its newest complete checkpoint and gives the same weights as an uninterrupted one, bit by bit.

    Args:
        files: the files of a recipe that extends another one, for the manifest.

    Raises:
        MissingExtraError: torch, TRL or PEFT is not installed.
        ConfigError: the recipe cannot be trained or served, or the folder holds a run of another recipe.
        DataError: a dataset cannot supply samples.
        RunError: training failed, or another process trains in the folder.
        AdapterError: the finished adapter has changed on disk.
        TrainingStopped: SIGTERM or Ctrl-C; a checkpoint was saved.
    """
    require_datasets(recipe)
    inputs = open_checked(recipe, output)
    _check_own_folder(recipe, inputs.base, output)
    with lock_folder(output):
        deciding_values = inputs.deciding_values()
        if prepare_folder(output, deciding_values, resume=recipe.resume, commit=inputs.base_commit):
            if is_first_process():
                print(f"{output} is finished already; nothing was trained", file=sys.stderr)
            return output
        _print_advice(inputs)
        from trainers.run.session import run_session

        run_session(inputs, output, progress=progress, files=files)
    return output


def dry_run(recipe: Recipe, *, progress: bool = True) -> DryRun:
    """Train two steps on the heaviest samples of a recipe's run, and write nothing.

    Raises:
        RunError: out of memory; the message says what to change. Other errors as ``train``.
    """
    require_datasets(recipe)
    inputs = open_checked(recipe, None)
    _print_advice(inputs)
    from trainers.run.dry_run import run_dry

    return run_dry(inputs, progress=progress)


def _check_own_folder(recipe: Recipe, base: Path | str, output: Path) -> None:
    """Refuse an output folder that is the base model's or the start adapter's."""
    for key, folder in (("model", base if isinstance(base, Path) else None), ("adapter", recipe.adapter)):
        if folder is not None and Path(folder).resolve() == output.resolve():
            raise ConfigError(f"output_dir {output} is the folder of the {key} that is trained from; name another one")


def _print_advice(inputs: RecipeInputs) -> None:
    """Print what a user should know before training."""
    if is_first_process():
        for line in inputs.advice:
            print(f"warning: {line}", file=sys.stderr, flush=True)


def open_checked(recipe: Recipe, output: Path | None) -> RecipeInputs:
    """Check a recipe before training, and open what it names."""
    require_train_extra()
    remove_launcher_variables()
    check_lora(recipe)
    check_optional_packages(recipe)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    check_weights(find_base(recipe.model))  # first: an incomplete Hub model may lack the files that are opened next
    return open_inputs(recipe, output)

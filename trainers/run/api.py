"""Supervised fine-tuning from a recipe to an adapter folder; the heavy packages are imported when it starts."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from harness.core.errors import ConfigError
from trainers.model.inputs import RecipeInputs, check_weights, find_base, open_inputs
from trainers.model.lora import check_lora
from trainers.recipe.extras import check_optional_packages, require_train_extra
from trainers.recipe.launcher_environment import is_first_process, remove_launcher_variables
from trainers.recipe.schema import Recipe
from trainers.store.run_folder import lock_folder, prepare_folder

if TYPE_CHECKING:
    from trainers.run.dry_run import DryRun


def train(recipe: Recipe, output: Path, *, progress: bool = True) -> Path:
    """Train a recipe into the folder ``output`` and return it.

    A folder that already holds the finished result of the same recipe is returned at once, with a word on stderr;
    one with an unfinished run is gone on with from its newest complete checkpoint, to the same bits.

    Raises:
        MissingExtraError: torch, TRL or PEFT is not installed.
        ConfigError: the recipe cannot be trained or served, or the folder holds a run of another recipe.
        DataError: a dataset cannot supply. RunError: training failed, or another process trains in the folder.
        AdapterError: the finished adapter has changed on disk. TrainingStopped: SIGTERM or Ctrl-C; saved.
    """
    inputs = _ready(recipe, output)
    _check_own_folder(recipe, inputs.base, output)
    with lock_folder(output):
        decides = inputs.deciding_values()
        if prepare_folder(output, decides, resume=recipe.resume, commit=inputs.base_commit):
            if is_first_process():
                print(f"{output} is finished already; nothing was trained", file=sys.stderr)
            return output
        _tell(inputs)
        from trainers.run.session import run_session

        run_session(inputs, output, progress=progress)
    return output


def dry_run(recipe: Recipe, *, progress: bool = True) -> DryRun:
    """Two steps on the heaviest samples of a recipe's run, which leave nothing behind.

    Raises:
        RunError: out of memory; the message says what to change. Else as ``train``.
    """
    inputs = _ready(recipe, None)
    _tell(inputs)
    from trainers.run.dry_run import run_dry

    return run_dry(inputs, progress=progress)


def _check_own_folder(recipe: Recipe, base: Path | str, output: Path) -> None:
    """Refuse to write over what is trained from."""
    for key, folder in (("model", base if isinstance(base, Path) else None), ("adapter", recipe.adapter)):
        if folder is not None and Path(folder).resolve() == output.resolve():
            raise ConfigError(f"output_dir {output} is the folder of the {key} that is trained from; name another one")


def _tell(inputs: RecipeInputs) -> None:
    """Print what a user should know before training."""
    if is_first_process():
        for line in inputs.advice:
            print(f"warning: {line}", file=sys.stderr, flush=True)


def _ready(recipe: Recipe, output: Path | None) -> RecipeInputs:
    require_train_extra()
    remove_launcher_variables()
    check_lora(recipe)
    check_optional_packages(recipe)
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    check_weights(find_base(recipe.model))  # first: of a hub model that is here in part, other files may be missing too
    return open_inputs(recipe, output)

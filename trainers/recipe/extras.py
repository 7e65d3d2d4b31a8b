"""Check the packages that training needs, and those that only some recipes need, such as TensorBoard."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.core.errors import ConfigError, MissingExtraError
from trainers.recipe.schema import Recipe

NEEDED = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "safetensors")
"""Packages of the ``train`` extra."""
PROJECT = "arc-bench"
"""Project name under which Weights & Biases and trackio list the runs."""
EVENTS = "tensorboard"
"""Folder of TensorBoard's event files inside the output folder."""
_REPORTERS = {"tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",), "trackio": ("trackio",)}


def require_train_extra() -> None:
    """Check that the packages of the ``train`` extra are installed.

    Raises:
        MissingExtraError: at least one is not; the message gives the install command.
    """
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise MissingExtraError(f'training needs {", ".join(missing)}, not installed here: pip install -e ".[train]"')


def check_optional_packages(recipe: Recipe) -> None:
    """Refuse a recipe before training if a package that it needs is not installed.

    Raises:
        ConfigError: the message names the package and the install command.
    """
    needed = {f"report_to {name}": _REPORTERS[name] for name in recipe.report_to}
    if recipe.quantize_4bit:
        needed["quantize_4bit"] = ("bitsandbytes",)
    for key, packages in needed.items():
        if not any(importlib.util.find_spec(package) for package in packages):
            raise ConfigError(f"recipe: {key} needs {packages[0]}, not installed here: pip install {packages[0]}")


@contextmanager
def reporter_environment(recipe: Recipe, output: Path) -> Iterator[None]:
    """Set the environment variables that tell experiment trackers where to write, unless the user has set them.

    TensorBoard's files would otherwise lie in the checkpoint folder and be deleted with it.

    Raises:
        ConfigError: Weights & Biases refuses to start the run.
    """
    refusals: tuple[type[Exception], ...] = ()
    if "wandb" in recipe.report_to:
        import wandb

        refusals = (wandb.errors.Error,)
    defaults = {"TENSORBOARD_LOGGING_DIR": str(output / EVENTS), "WANDB_PROJECT": PROJECT, "WANDB_DIR": str(output)}
    added = {name: value for name, value in defaults.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    except refusals as error:
        raise ConfigError(f"recipe: report_to wandb: {error} Or set WANDB_MODE=offline") from error
    finally:
        for name in added:
            del os.environ[name]

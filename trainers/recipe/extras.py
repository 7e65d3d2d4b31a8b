"""Check the packages that training needs, and those that only some recipes need, such as TensorBoard."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.core.errors import ConfigError, MissingExtraError
from harness.trackers.choice import TRAINING_PACKAGES, missing_package
from harness.trackers.report import PROJECT
from trainers.recipe.schema import Recipe

NEEDED = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "safetensors")
"""Packages of the ``train`` extra."""
EVENTS = "tensorboard"
"""Folder of TensorBoard's event files inside the output folder."""


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
    for name in recipe.report_to:
        if message := missing_package(name, TRAINING_PACKAGES[name]):
            raise ConfigError(f"recipe: report_to {message}")
    if recipe.quantize_4bit and importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError("recipe: quantize_4bit needs bitsandbytes, not installed here: pip install bitsandbytes")


@contextmanager
def reporter_environment(recipe: Recipe, output: Path) -> Iterator[None]:
    """Set the environment variables that tell experiment trackers where to write, unless the user has set them.

    TensorBoard's files would otherwise lie in the checkpoint folder and be deleted with it.

    Raises:
        ConfigError: Weights & Biases or MLflow refuses to start the run.
    """
    refusals: tuple[type[Exception], ...] = ()
    if "wandb" in recipe.report_to:
        import wandb

        refusals += (wandb.errors.Error,)
    if "mlflow" in recipe.report_to:
        import mlflow

        refusals += (mlflow.exceptions.MlflowException,)
    defaults = {"TENSORBOARD_LOGGING_DIR": str(output / EVENTS), "WANDB_PROJECT": PROJECT, "WANDB_DIR": str(output)}
    defaults |= {"MLFLOW_EXPERIMENT_NAME": PROJECT, "MLFLOW_DISABLE_TELEMETRY": "true"}
    added = {name: value for name, value in defaults.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    except refusals as error:
        remedy = " Or set WANDB_MODE=offline" if type(error).__module__.startswith("wandb") else ""
        raise ConfigError(f"recipe: report_to: {error}{remedy}") from error
    finally:
        for name in added:
            del os.environ[name]

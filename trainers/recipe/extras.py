"""The packages that training needs, and those that only some recipes need: TensorBoard, trackio, bitsandbytes …"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.core.errors import ConfigError, MissingExtraError
from trainers.recipe.schema import Recipe

NEEDED = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "safetensors")
PROJECT = "arc-bench"
"""The project under which Weights & Biases and trackio show the runs."""
EVENTS = "tensorboard"
"""The folder of TensorBoard's event files in the output folder."""
_REPORTERS = {"tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",), "trackio": ("trackio",)}


def require_train_extra() -> None:
    """Check that the packages of the ``train`` extra are there.

    Raises:
        MissingExtraError: one is not; the message has the remedy.
    """
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise MissingExtraError(f'training needs {", ".join(missing)}, not installed here: pip install -e ".[train]"')


def check_optional_packages(recipe: Recipe) -> None:
    """Refuse before training what needs a package that is not there.

    Raises:
        ConfigError: it is not installed; the message has the remedy.
    """
    needed = {f"report_to {name}": _REPORTERS[name] for name in recipe.report_to}
    if recipe.quantize_4bit:
        needed["quantize_4bit"] = ("bitsandbytes",)
    for key, packages in needed.items():
        if not any(importlib.util.find_spec(package) for package in packages):
            raise ConfigError(f"recipe: {key} needs {packages[0]}, not installed here: pip install {packages[0]}")


@contextmanager
def reporter_environment(recipe: Recipe, output: Path) -> Iterator[None]:
    """Tell the reporters where to write, where the user's environment does not say so.

    TensorBoard's files would else lie among the checkpoints, and go with them.

    Raises:
        ConfigError: Weights & Biases does not take the run.
    """
    refusals: tuple[type[Exception], ...] = ()
    if "wandb" in recipe.report_to:
        import wandb

        refusals = (wandb.errors.Error,)
    wanted = {"TENSORBOARD_LOGGING_DIR": str(output / EVENTS), "WANDB_PROJECT": PROJECT, "WANDB_DIR": str(output)}
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    except refusals as error:
        raise ConfigError(f"recipe: report_to wandb: {error} Or set WANDB_MODE=offline") from error
    finally:
        for name in added:
            del os.environ[name]

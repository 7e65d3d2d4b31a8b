"""Read the recipe of a test-time training, in which ``datasets``, ``max_steps`` and even ``ttt`` may be absent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainers.recipe.explain import InvalidValuesError
from trainers.recipe.files.extended_file import ExtendedFile, naming_files, opened
from trainers.recipe.files.yaml_file import load_data
from trainers.recipe.schema import Recipe, RecipeData, flatten, make_recipe
from trainers.recipe.ttt_part import TttRecipe
from trainers.recipe.ttt_presets import with_preset

NOT_DECIDING = ("datasets", "validation", "eval_steps", "ttt.preset", "ttt.task_deadline")
"""Keys without effect on the adapter of a task that was trained to its last step."""
_DEFAULT_OUTPUT = "ttt"
_ANY_STEPS = 1 << 31
"""Stands for ``max_steps`` until the steps of a task are known: more than any warm-up."""
_REPLACED = ("datasets", "validation", "max_steps", "output_dir", "report_to", "workers")
"""Keys of ordinary trainings whose values ``make_ttt_recipe`` replaces."""
_WITHOUT_EFFECT = ("resplit", "eval_steps", "save_steps", "logging_steps", "keep_checkpoints", "resume")


def load_ttt_recipe(file: Path | ExtendedFile | None, overrides: Sequence[str] = ()) -> Recipe:
    """Return the recipe of a YAML file, completed for test-time training; arguments as in ``load_recipe``.

    Raises:
        ConfigError: see ``make_ttt_recipe`` and ``load_data``; it names the file from which a wrong value comes.
    """
    file = opened(file)
    with naming_files(file, overrides):
        return make_ttt_recipe(load_data(file, overrides), str(file.child.path) if file else "recipe")


def make_ttt_recipe(data: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """Build the recipe by which every task is trained.

    Its ``max_steps`` are the steps of a task, and its ``ttt`` part is always present: a recipe without one has the
    defaults. What it says about ordinary trainings only is not used (``unused_keys``).

    Args:
        data: plain values.
        where: prefix of error messages, such as the file name.

    Raises:
        InvalidValuesError: one line that lists everything wrong.
    """
    part = {} if data.get("ttt") is None else data["ttt"]
    values = with_preset({**data, "ttt": part})
    values |= {"datasets": [], "validation": None, "output_dir": _DEFAULT_OUTPUT}
    values |= {"report_to": [], "workers": 0, "max_steps": _ANY_STEPS}
    recipe = make_recipe(values, where)
    _check(recipe, where)
    recipe = make_recipe({**values, "max_steps": ttt_part(recipe).n_steps(recipe.batch_size)}, where)
    # Read back, so that a default such as 32 is the 32.0 that a recipe from JSON has, in every record and digest.
    return make_recipe(recipe.model_dump(mode="json"), where)


def unused_keys(file: Path | ExtendedFile | None, overrides: Sequence[str] = ()) -> list[str]:
    """Return the keys that a recipe sets for ordinary trainings and that test-time training does not use.

    Raises:
        ConfigError: as ``load_ttt_recipe``.
    """
    data = load_data(opened(file), overrides)
    used = make_ttt_recipe(data).model_dump(mode="json")
    expected = {key: used[key] for key in _REPLACED}
    expected |= {key: Recipe.model_fields[key].default for key in _WITHOUT_EFFECT}
    return [key for key, value in expected.items() if key in data and data[key] != value]


def task_values(recipe: Recipe) -> RecipeData:
    """Return the keys that decide the adapter of a task, flat."""
    values = recipe.deciding_values() | flatten({"ttt": ttt_part(recipe).model_dump(mode="json")})
    return {key: value for key, value in values.items() if not key.startswith(NOT_DECIDING)}


def ttt_part(recipe: Recipe) -> TttRecipe:
    """Return the ``ttt`` part of a recipe for test-time training."""
    assert recipe.ttt is not None
    return recipe.ttt


def _check(recipe: Recipe, where: str) -> None:
    """Refuse what test-time training cannot use."""
    reasons = {
        "lora": "null trains whole models; test-time training makes one adapter per task"
        if recipe.lora is None
        else "",
        "serveable": ""
        if recipe.serveable
        else "false: the adapters of test-time training are served at once; drop it",
        "sharding": "" if recipe.sharding == "none" else "one process trains all tasks; drop it",
    }
    if problems := [((key,), f"{key}: {reason}") for key, reason in reasons.items() if reason]:
        raise InvalidValuesError(where, problems)

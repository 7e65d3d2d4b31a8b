"""The JSON schema of sweep files agrees with the model about every example and every invalid sweep of the tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from harness.cli.workflows.sweep.command import sweep
from harness.cli.workflows.sweep.sweep_file import Sweep, load_sweep
from harness.cli.workflows.sweep.sweep_schema import sweep_schema
from harness.core.errors import ConfigError
from tests.cli.sweep.test_sweep_file import BASIC, test_wrong_sweeps_are_refused, write
from tests.conftest import ROOT
from tests.support.training.schemas import BY_RULE, error_kinds, parametrized, read_as_editor, schema_errors
from trainers.recipe.files.extended_file import LISTS_OF_ONE
from trainers.recipe.parts import normalize_datasets
from trainers.recipe.schema import Recipe

SCHEMA = sweep_schema()
EXAMPLES = [
    path for path in sorted((ROOT / "examples").glob("*.yaml")) if "evaluation" in yaml.safe_load(path.read_text())
]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_fits_the_schema(path: Path) -> None:
    assert schema_errors(SCHEMA, read_as_editor(path)) == []


@pytest.mark.parametrize("changes", [changes for changes, _ in parametrized(test_wrong_sweeps_are_refused)], ids=str)
def test_every_invalid_sweep_is_refused_but_for_rules_about_several_keys(changes: dict[str, Any]) -> None:
    values = {key: value for key, value in {**BASIC, **changes}.items() if value is not None}
    kinds = error_kinds(Sweep, values) - BY_RULE
    recipe_is_wrong = "recipe" in changes  # read when the adapters' recipes are made
    assert bool(schema_errors(SCHEMA, values)) == bool(kinds or recipe_is_wrong)


@pytest.mark.parametrize(
    "recipe", [{"max_steps": 0}, {"lora": {"rnk": 3}}, {"validation": {}}, {"seed": 3}, {"output_dir": "x"}, "tiny"]
)
def test_the_recipe_of_a_sweep_is_checked_too(tmp_path: Path, recipe: Any) -> None:
    values = {**BASIC, "recipe": {**BASIC["recipe"], **recipe} if isinstance(recipe, dict) else recipe}
    assert schema_errors(SCHEMA, BASIC) == []
    assert schema_errors(SCHEMA, values)
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError):
        load_sweep(path)


RANKS = {"lora.rank": [8, 32]}
OF_RECIPE = {
    "original": None,
    "added": None,
    "original_weight": None,
    "recipe": {**BASIC["recipe"], "datasets": "toy/copy"},
}


@pytest.mark.parametrize(
    "changes",
    [
        {"axes": {**RANKS, "learning_rate": [1e-4], "lora": [None, {"rank": 4}], "validation.spec": ["toy/copy"]}},
        {"axes": {"original_weight": [1, 0.5]}, "original_weight": None},
        {"cells": [{"name": "as-it-is"}, {"lora.rank": 4, "name": None}, {"original_weight": 1}]},
        {**OF_RECIPE, "axes": {"datasets.0.weight": [0.5, 2], "chat_template_kwargs.enable_thinking": [True]}},
    ],
)
def test_keys_that_vary_fit_the_schema(changes: dict[str, Any]) -> None:
    assert schema_errors(SCHEMA, {key: value for key, value in {**BASIC, **changes}.items() if value is not None}) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"axes": {"lora.rnk": [8]}},
        {"axes": {"lora.rank": 8}},
        {"axes": {"lora.rank": []}},
        {"axes": {"lora.rank": ["wide"]}},
        {"axes": {"lora.rank": [0]}},
        {"axes": {"seed": [1, 2]}},
        {"axes": {"datasets": ["toy/copy"]}},
        {"axes": {"tokens_a_pass": [1, 2]}},
        {"axes": {"ttt.steps": [1, 2]}},
        {"axes": {"original_weight": [2]}, "original_weight": None},
        {"cells": [{"encoder": "E"}]},
        {"cells": [{"lora.rank": [8]}]},
        {"cells": [{"name": "../x"}]},
        {"cells": [{}]},
        {"paired_seeds": "both"},
    ],
    ids=str,
)
def test_keys_that_cannot_vary_and_wrong_values_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = write(tmp_path / "s.yaml", **changes)
    assert schema_errors(SCHEMA, yaml.safe_load(path.read_text()))
    with pytest.raises(ConfigError):
        load_sweep(path)


def test_a_sweep_that_extends_another_may_lack_required_keys() -> None:
    assert (
        schema_errors(SCHEMA, {"extends": "base.yaml", "seeds": [1], "recipe": {"validation": {"exact_tasks": 1}}})
        == []
    )
    assert schema_errors(SCHEMA, {"seeds": [1]})


def test_the_keys_are_those_of_the_models() -> None:
    assert [key for key in SCHEMA["properties"] if key != "extends"] == list(Sweep.model_fields)
    assert set(Recipe.model_fields) - set(SCHEMA["properties"]["recipe"]["properties"]) == {"output_dir", "seed"}


def test_every_key_has_a_description() -> None:
    parts = [part for part in SCHEMA["$defs"].values() if "properties" in part]
    keys = [(name, p) for part in (SCHEMA, *parts) for name, p in part["properties"].items()]
    assert [name for name, part in keys if "description" not in part and name != "recipe"] == []


def test_keys_that_may_hold_one_dataset_are_known_to_merging() -> None:
    """Such a mapping replaces the extended file's, as a list does."""
    fields = {**Recipe.model_fields, **Sweep.model_fields}
    normalized = {
        name
        for name, field in fields.items()
        if any(getattr(part, "func", None) is normalize_datasets for part in field.metadata)
    }
    assert normalized == LISTS_OF_ONE


def test_the_command_prints_the_schema_and_needs_no_file() -> None:
    result = CliRunner().invoke(sweep, ["--schema"])
    assert result.exit_code == 0
    assert json.loads(result.output) == SCHEMA

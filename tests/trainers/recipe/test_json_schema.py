"""The JSON schema of recipes agrees with the models about every example and every invalid recipe of the tests."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, BeforeValidator, Field

from harness.core.errors import ConfigError
from tests.conftest import ROOT
from tests.support.training.recipes import SMALL
from tests.support.training.schemas import BY_RULE, error_kinds, parametrized, read_as_editor, schema_errors
from tests.trainers.data.test_task_augmentation import RECIPE, test_invalid_task_changes_are_explained
from tests.trainers.recipe import test_recipe
from tests.trainers.run.test_validation import test_impossible_validations_are_refused
from trainers.commands.cli import train
from trainers.recipe.files.yaml_file import load_data
from trainers.recipe.json_schema import file_schema, recipe_schema
from trainers.recipe.schema import Recipe, make_recipe

SCHEMA = recipe_schema()
EXAMPLES = [
    path for path in sorted((ROOT / "examples").glob("*.yaml")) if "evaluation" not in yaml.safe_load(path.read_text())
]


def invalid_recipes() -> list[dict[str, Any]]:
    """Return the values of every invalid recipe of the tests that can be read at all."""
    recipes = []
    for override, _ in parametrized(test_recipe.test_an_invalid_override_is_explained_in_one_line):
        try:
            recipes.append(load_data(None, [override], SMALL))
        except ConfigError:
            continue
    changes = [*parametrized(test_recipe.test_numbers_that_break_a_library_are_refused)]
    changes += parametrized(test_impossible_validations_are_refused)
    recipes += [{**SMALL, **values} for values, _ in changes]
    recipes += [
        {**RECIPE, "datasets": "toy/cross", **v} for v, _ in parametrized(test_invalid_task_changes_are_explained)
    ]
    return recipes


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_fits_the_schema(path: Path) -> None:
    assert schema_errors(SCHEMA, read_as_editor(path)) == []


@pytest.mark.parametrize("values", invalid_recipes(), ids=str)
def test_every_invalid_recipe_is_refused_but_for_rules_about_several_keys(values: dict[str, Any]) -> None:
    kinds = error_kinds(Recipe, values)
    assert kinds
    without_datasets = values.get("datasets") == []  # the one rule about several keys that the schema has
    assert bool(schema_errors(SCHEMA, values)) == bool(kinds - BY_RULE or without_datasets)


def test_the_invalid_recipes_are_of_both_kinds() -> None:
    by_schema = [bool(schema_errors(SCHEMA, values)) for values in invalid_recipes()]
    assert by_schema.count(True) >= 10
    assert by_schema.count(False) >= 5


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 70_000),
    st.floats(-1, 2),
    st.sampled_from(["tiny", "none", "skip", "x"]),
    st.lists(st.sampled_from(["toy/cross", 3, "wandb"]), max_size=2),
    st.dictionaries(st.sampled_from(["rank", "spec"]), st.integers(0, 9)),
)


@given(
    st.sampled_from(
        [*Recipe.model_fields, "lora.rank", "validation.by", "datasets.0.weight", "ttt.samples", "surplus"]
    ),
    VALUES,
)
def test_what_pydantic_refuses_by_type_or_range_the_schema_refuses(key: str, value: Any) -> None:
    first = {"validation": {"spec": "toy/cross"}} if key.startswith("validation.") else {}
    values = load_data(None, (), {**SMALL, **first, key: value})
    kinds = error_kinds(Recipe, values)
    if kinds - BY_RULE:
        assert schema_errors(SCHEMA, values)
    elif not kinds:
        recorded = Recipe.model_validate(values).model_dump(mode="json")
        assert schema_errors(SCHEMA, recorded) == []


def test_the_keys_are_those_of_the_model_and_have_descriptions() -> None:
    keys = {name: part for name, part in SCHEMA["properties"].items() if name != "extends"}
    assert list(keys) == list(Recipe.model_fields)
    parts = [part for part in SCHEMA["$defs"].values() if "properties" in part]
    missing = [
        name
        for part in ({"properties": keys}, *parts)
        for name, p in part["properties"].items()
        if "description" not in p
    ]
    assert missing == []


def test_a_recipe_that_extends_another_may_lack_required_keys() -> None:
    child = {"extends": "base.yaml", "validation": {"exact_tasks": 4}, "lora": {"rank": 4}}
    assert schema_errors(SCHEMA, child) == []
    without = {key: value for key, value in child.items() if key != "extends"}
    assert any("'model' is a required property" in error for error in schema_errors(SCHEMA, without))
    whole = {**SMALL, "validation": {"exact_tasks": 4}}
    assert schema_errors(SCHEMA, whole)
    for wrong in ({"lora": {"rnk": 4}}, {"datasets": [{"weight": 1}]}, {"datasets": {"weight": 1}}, {"extends": 3}):
        assert schema_errors(SCHEMA, {**child, **wrong})


def test_a_recipe_for_test_time_training_needs_a_model_alone() -> None:
    recipe = {
        "model": "tiny",
        "ttt": {"leave_out": [1, 2], "samples": 8, "task_deadline": "1h30m"},
        "loss_on": "outputs",
    }
    assert schema_errors(SCHEMA, recipe) == []
    assert schema_errors(SCHEMA, {**recipe, "datasets": [], "ttt": {"leave_out": 1, "task_deadline": 90}}) == []
    assert schema_errors(SCHEMA, {"ttt": {}})
    for not_used in (None, 3):
        assert schema_errors(SCHEMA, {**recipe, "ttt": not_used})
    for wrong in (
        {"sampels": 8},
        {"leave_out": 3},
        {"leave_out": [3]},
        {"task_deadline": "soon"},
        {"task_deadline": 0},
    ):
        assert schema_errors(SCHEMA, {**recipe, "ttt": wrong})
        assert "value_error" not in error_kinds(Recipe, {**SMALL, "ttt": wrong})


class Converted(BaseModel):
    """A field that takes numbers, and texts that are converted to numbers."""

    seconds: Annotated[float, Field(gt=0), BeforeValidator(lambda value: 60.0 if value == "1m" else value)]


def test_what_a_field_converts_is_accepted_where_it_does_not_declare_it() -> None:
    schema = file_schema(Converted, "test", {}, {})
    for value in (3, 0.5, "1m"):
        assert schema_errors(schema, {"seconds": value}) == []
        assert error_kinds(Converted, {"seconds": value}) == set()
    assert schema_errors(schema, {"seconds": 0})


def test_infinite_numbers_are_beyond_json() -> None:
    with pytest.raises(ConfigError, match="finite"):
        make_recipe({**SMALL, "learning_rate": math.inf})


def test_the_command_prints_the_schema_and_needs_nothing_else() -> None:
    result = CliRunner().invoke(train, ["--schema"])
    assert result.exit_code == 0
    assert json.loads(result.output) == SCHEMA

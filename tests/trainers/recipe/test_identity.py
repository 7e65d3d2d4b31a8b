"""Which training runs have the same recipe."""

from __future__ import annotations

from typing import Any

import pytest

from harness.client.protocol.model_list import parse_model
from harness.runs.schemas.training_record import training_record
from tests.support.runs.recipe_runs import training_of
from trainers.recipe.identity import recipe_identity
from trainers.recipe.schema import CHANGEABLE_KEYS, MICRO_BATCH_KEYS

SAME: list[dict[str, Any]] = [
    {"output_dir": "elsewhere"}, {"resume": False}, {"workers": 2}, {"logging_steps": 3}, {"save_steps": 9},
    {"keep_checkpoints": True}, {"report_to": ["wandb"]}, {"gradient_checkpointing": True}, {"tokens_a_pass": 99},
    {"micro_batch_size": 1}, {"max_padding": 0.2}, {"threads": 2}, {"serveable": False}, {"max_lora_rank": 128},
    {"model": "/copies/tiny"}, {"datasets": [{"spec": "copy-of-cross.json"}]},
]  # fmt: skip
OTHER: list[dict[str, Any]] = [
    {"learning_rate": 3e-4}, {"lora": {"rank": 4}}, {"max_steps": 4}, {"batch_size": 8}, {"augment": False},
    {"datasets": [{"spec": "toy/cross", "weight": 0.5}]}, {"encoder": "RowNumberEncoder(MinimalGridEncoder())"},
    {"eval_steps": 7}, {"scheduler": "cosine"}, {"adapter": "trained/before"},
]  # fmt: skip


@pytest.mark.parametrize("keys", SAME)
def test_seed_and_keys_that_decide_nothing_leave_the_recipe_the_same(keys: dict[str, Any]) -> None:
    assert recipe_identity(training_of(1, **keys)) == recipe_identity(training_of(0))


def test_every_key_that_decides_nothing_is_tried() -> None:
    assert {key for keys in SAME for key in keys} >= CHANGEABLE_KEYS | MICRO_BATCH_KEYS


@pytest.mark.parametrize("keys", OTHER)
def test_keys_that_decide_make_another_recipe(keys: dict[str, Any]) -> None:
    assert recipe_identity(training_of(0, **keys)) != recipe_identity(training_of(0))


@pytest.mark.parametrize("name", ["base", "datasets.0", "datasets.0.prompt", "chat_template_digest"])
def test_other_content_under_the_same_name_makes_another_recipe(name: str) -> None:
    training = training_of(0)
    other = training.model_copy(update={"digests": {**training.digests, name: "other"}})
    assert recipe_identity(other) != recipe_identity(training)


def test_a_key_that_an_older_version_did_not_record_has_its_default() -> None:
    training = training_of(0)
    recipe = {key: value for key, value in training.recipe.items() if key != "change_probability"}
    assert recipe_identity(training.model_copy(update={"recipe": recipe})) == recipe_identity(training)


MANIFEST: dict[str, Any] = {
    "recipe": {"max_steps": 3},
    "seed": 7,
    "base": {"name": "tiny", "digest": "b"},
    "datasets": [{"spec": "x", "digest": "d", "prompt_digest": "p"}],
    "validation": {"digest": "v", "prompt_digest": "q"},
    "chat_template_digest": "c",
    "template_date": None,
}


def test_the_record_has_the_digests_of_a_manifest() -> None:
    record = training_record(MANIFEST)
    assert record is not None
    assert (record.seed, record.recipe) == (7, {"max_steps": 3})
    assert record.digests == {
        "base": "b", "datasets.0": "d", "datasets.0.prompt": "p", "validation": "v", "validation.prompt": "q",
        "chat_template_digest": "c",
    }  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"recipe": None},
        {"seed": "x"},
        {"base": {}},
        {"base": 3},
        {"datasets": 3},
        {"datasets": [{}]},
        {"validation": 1},
    ],
)
def test_a_manifest_without_recipe_or_digests_gives_no_record(changes: dict[str, Any]) -> None:
    assert training_record({**MANIFEST, **changes}) is None


def test_a_server_that_reports_the_manifest_gives_the_record() -> None:
    model = parse_model({"id": "a", "parent": "tiny", "arc_bench": {"manifest": MANIFEST}})
    assert model.training == training_record(MANIFEST)
    plain = parse_model({"id": "a", "parent": "tiny"})
    assert plain.training is None
    assert "training" not in plain.model_dump(mode="json")

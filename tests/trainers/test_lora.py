"""LoRA options: what vLLM loads, what reaches PEFT, and the adapter from which training continues."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import ConfigError
from tests.support.recipes import SMALL
from trainers.model.inputs import find_base
from trainers.model.lora import check_lora
from trainers.recipe.schema import LoraRecipe, make_recipe


@pytest.mark.parametrize(
    ("lora", "reason"),
    [
        ({"dora": True}, "DoRA"),
        ({"bias": "all"}, "bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"init": "pissa"}, "changes the base weights"),
        ({"init": "olora"}, "changes the base weights"),
        ({"targets": ["q_proj", "lm_head"]}, "lm_head"),
        ({"targets": ["embed_tokens"]}, "embed_tokens"),
        ({"rank": 128}, "over max_lora_rank 64"),
        ({"rank_pattern": {"q_proj": 256}}, "over max_lora_rank 64"),
    ],
)
def test_unserveable_options_are_refused(lora: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        check_lora(make_recipe({**SMALL, "lora": lora}))
    check_lora(make_recipe({**SMALL, "lora": lora, "serveable": False}))


@pytest.mark.parametrize(
    "lora", [{"rslora": True}, {"rank": 64}, {"layers": [0, 1]}, {"targets": r".*q_proj"}, {"alpha_pattern": {"q": 3}}]
)
def test_serveable_options_are_accepted(lora: dict[str, Any]) -> None:
    check_lora(make_recipe({**SMALL, "lora": lora}))


def test_options_that_cannot_train_are_refused() -> None:
    for lora in ({"init": "loftq"}, {"targets": "("}):
        with pytest.raises(ConfigError):
            check_lora(make_recipe({**SMALL, "lora": lora, "serveable": False}))
    with pytest.raises(ConfigError, match="lora must not be null"):
        check_lora(make_recipe({**SMALL, "lora": None, "adapter": "a"}))


@pytest.mark.parametrize("key", ["rank_pattern", "alpha_pattern"])
def test_invalid_patterns_are_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"recipe: lora\.{key} '\(' is no regular expression: missing \)"):
        check_lora(make_recipe({**SMALL, "lora": {key: {"(": 3}}}))


def test_an_initialisation_that_is_random_at_every_load_is_refused() -> None:
    for serveable in (True, False):
        data = {**SMALL, "lora": {"init": "pissa_niter_4"}, "serveable": serveable}
        with pytest.raises(ConfigError, match="would find another base than was trained on; use pissa"):
            check_lora(make_recipe(data))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("saved", "named"),
    [
        ({}, []),
        ({"r": 4, "lora_alpha": 5}, ["lora.rank=4", "lora.alpha=5"]),
        ({"lora_dropout": 0.1}, ["lora.dropout=0.1"]),
        ({"bias": "all"}, ['lora.bias="all"']),
        ({"modules_to_save": ["lm_head"]}, ['lora.modules_to_save=["lm_head"]']),
        ({"layers_to_transform": [0]}, ["lora.layers=[0]"]),
        ({"rank_pattern": {"q_proj": 4}}, ['lora.rank_pattern={"q_proj": 4}']),
        ({"init_lora_weights": "gaussian"}, []),
        ({"init_lora_weights": "pissa"}, ['lora.init="pissa"']),
    ],
)
def test_options_of_a_start_adapter_that_differ_are_named(saved: dict[str, Any], named: list[str]) -> None:
    from trainers.model.lora import lora_config, recipe_differences

    said = LoraRecipe(targets=["q_proj", "v_proj"])
    found = lora_config(said)
    for name, value in saved.items():
        setattr(found, name, value)
    assert recipe_differences(found, said) == named


@pytest.mark.slow
@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "v_proj"]])
def test_a_start_adapter_on_other_modules_is_refused(tmp_path: Path, targets: str | list[str]) -> None:
    from peft import get_peft_model
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM

    from trainers.model.lora import lora_config
    from trainers.model.start_adapter import load_start_adapter

    base, folder = find_base("tiny"), tmp_path / "adapter"
    recipe = make_recipe({**SMALL, "adapter": str(folder), "lora": {"targets": targets}})
    assert recipe.lora is not None
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), lora_config(recipe.lora)).save_pretrained(folder)
    load_start_adapter(AutoModelForCausalLM.from_pretrained(base), recipe)
    other = recipe.model_copy(update={"lora": LoraRecipe(targets=["q_proj", "k_proj"])})
    with pytest.raises(ConfigError, match=r'is another than the recipe says; set lora\.targets=\["'):
        load_start_adapter(AutoModelForCausalLM.from_pretrained(base), other)
    weights = load_file(folder / "adapter_model.safetensors")
    kept = {name: value for name, value in weights.items() if ".layers.0." in name and ".q_proj." in name}
    save_file(kept, folder / "adapter_model.safetensors")
    with pytest.raises(ConfigError, match=r"its weights are not on the modules .* \d+ differ, such as model\.layers"):
        load_start_adapter(AutoModelForCausalLM.from_pretrained(base), recipe)

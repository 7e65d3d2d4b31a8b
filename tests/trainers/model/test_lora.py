"""LoRA options: what vLLM loads, what reaches PEFT, and the adapter from which training continues."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.core.errors import ConfigError
from tests.support.training.recipes import SMALL
from trainers.model.base_model import find_base
from trainers.model.lora import check_lora
from trainers.recipe.parts import LoraRecipe
from trainers.recipe.schema import make_recipe


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
        ({"rank": 65}, "over max_lora_rank 64"),
        ({"rank_pattern": {"q_proj": 65}}, "over max_lora_rank 64"),
    ],
)
def test_unserveable_options_are_refused(lora: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        check_lora(make_recipe({**SMALL, "lora": lora}))
    check_lora(make_recipe({**SMALL, "lora": lora, "serveable": False}))


@pytest.mark.parametrize(
    "lora",
    [
        {"rslora": True},
        {"rank": 64},
        {"layers": [0, 1], "targets": ["q_proj"]},
        {"targets": r".*q_proj"},
        {"alpha_pattern": {"q": 3}},
    ],
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


@pytest.mark.parametrize(
    ("saved", "expected"),
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
def test_options_of_a_start_adapter_that_differ_are_named(saved: dict[str, Any], expected: list[str]) -> None:
    from trainers.model.lora import lora_config, recipe_differences

    lora = LoraRecipe(targets=["q_proj", "v_proj"])
    config = lora_config(lora)
    for name, value in saved.items():
        setattr(config, name, value)
    assert recipe_differences(config, lora) == expected


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
    some = {name: value for name, value in weights.items() if ".layers.0." in name and ".q_proj." in name}
    save_file(some, folder / "adapter_model.safetensors")
    with pytest.raises(ConfigError, match=r"its weights are not on the modules .* \d+ differ, such as model\.layers"):
        load_start_adapter(AutoModelForCausalLM.from_pretrained(base), recipe)


def test_every_option_reaches_peft() -> None:
    from trainers.model.lora import lora_config

    options: dict[str, Any] = {
        "rank": 5, "alpha": 7, "dropout": 0.25, "targets": ["q_proj"], "rslora": True, "init": "gaussian",
        "rank_pattern": {"q_proj": 3}, "alpha_pattern": {"q_proj": 4}, "layers": [1], "dora": True, "bias": "all",
        "modules_to_save": ["norm"],
    }  # fmt: skip
    assert set(options) == set(LoraRecipe.model_fields)
    config = lora_config(LoraRecipe(**options), "vision.*")
    assert (config.r, config.lora_alpha, config.lora_dropout, config.target_modules) == (5, 7, 0.25, {"q_proj"})
    assert (config.use_rslora, config.use_dora, config.bias, config.init_lora_weights) == (
        True,
        True,
        "all",
        "gaussian",
    )
    assert (config.rank_pattern, config.alpha_pattern) == ({"q_proj": 3}, {"q_proj": 4})
    assert (config.layers_to_transform, config.modules_to_save) == ([1], ["norm"])
    assert config.exclude_modules == "vision.*"


def test_only_the_listed_layers_get_an_adapter() -> None:
    from transformers import AutoConfig

    from trainers.model.lora import lora_config
    from trainers.model.start_adapter import targeted_modules

    model = AutoConfig.from_pretrained(find_base("tiny"))
    lora = LoraRecipe(targets=["q_proj"], layers=[1, 3])
    assert targeted_modules(model, lora_config(lora)) == {f"model.layers.{k}.self_attn.q_proj" for k in (1, 3)}

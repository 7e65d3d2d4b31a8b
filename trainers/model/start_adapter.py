"""Going on from an adapter: it must be the one that the recipe says. Imports torch and PEFT."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import load_peft_weights
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM

from harness.core.errors import ConfigError
from trainers.model.lora import as_json_value, lora_config, other_modules_pattern, recipe_differences
from trainers.recipe.schema import LoraRecipe, Recipe

_LORA = re.compile(r"base_model\.model\.(.+)\.lora_(?:embedding_)?A")


def load_start_adapter(model: Any, recipe: Recipe) -> PeftModel:
    """The base with the adapter that is gone on from.

    Raises:
        ConfigError: it does not fit the base, or is another than the recipe says.
    """
    assert recipe.adapter is not None
    assert recipe.lora is not None
    folder = recipe.adapter
    try:
        _check(
            LoraConfig.from_pretrained(folder), modules_with_weights(Path(folder)), recipe, recipe.lora, model.config
        )
        return PeftModel.from_pretrained(model, folder, is_trainable=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        why = " ".join(str(error).split())[:300]
        raise ConfigError(f"adapter {folder!r} cannot be loaded on {recipe.model!r}: {why}") from error


def _check(found: LoraConfig, there: set[str], recipe: Recipe, lora: LoraRecipe, model: Any) -> None:
    differing = recipe_differences(found, lora)
    if not differing and targeted_modules(model, lora_config(lora), outside=False) != targeted_modules(model, found):
        differing = [f"lora.targets={json.dumps(as_json_value(found.target_modules))}"]
    if differing:
        raise ConfigError(f"adapter {recipe.adapter!r} is another than the recipe says; set {', '.join(differing)}")
    if without := sorted(targeted_modules(model, found) ^ there):
        raise ConfigError(
            f"adapter {recipe.adapter!r}: its weights are not on the modules that its adapter_config.json names; "
            f"{len(without)} differ, such as {without[0]}"
        )


def targeted_modules(model: Any, lora: LoraConfig, *, outside: bool = True) -> set[str]:
    """The names of the modules that an adapter reaches in a model of this configuration, as PEFT finds them.

    Args:
        outside: also those that are beside the language model, in a model that reads pictures too.

    Raises:
        ValueError: there is none.
    """
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(model)
    if not outside:
        lora = replace(lora, exclude_modules=other_modules_pattern(empty))
    # What an initialisation does to weights needs weights; here are none.
    return set(get_peft_model(empty, replace(lora, init_lora_weights=True)).targeted_module_names)


def modules_with_weights(folder: Path) -> set[str]:
    """The names of the modules for which an adapter has weights."""
    found = (_LORA.match(name) for name in load_peft_weights(str(folder), device="cpu"))
    return {match[1] for match in found if match}

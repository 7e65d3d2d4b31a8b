"""Load the adapter from which training continues, and check it against the recipe. Imports torch and PEFT."""

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
from trainers.recipe.parts import LoraRecipe
from trainers.recipe.schema import Recipe

_LORA = re.compile(r"base_model\.model\.(.+)\.lora_(?:embedding_)?A")


def load_start_adapter(model: Any, recipe: Recipe) -> PeftModel:
    """Return the base model with the adapter from which training continues.

    Raises:
        ConfigError: the adapter does not fit the base, or its options differ from the recipe's.
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


def _check(config: LoraConfig, adapted: set[str], recipe: Recipe, lora: LoraRecipe, model: Any) -> None:
    """Refuse an adapter whose options differ from the recipe's, or whose weights are on unexpected modules."""
    differing = recipe_differences(config, lora)
    if not differing and targeted_modules(model, lora_config(lora), outside=False) != targeted_modules(model, config):
        differing = [f"lora.targets={json.dumps(as_json_value(config.target_modules))}"]
    if differing:
        raise ConfigError(f"adapter {recipe.adapter!r} is another than the recipe says; set {', '.join(differing)}")
    if differing_modules := sorted(targeted_modules(model, config) ^ adapted):
        raise ConfigError(
            f"adapter {recipe.adapter!r}: its weights are not on the modules that its adapter_config.json names; "
            f"{len(differing_modules)} differ, such as {differing_modules[0]}"
        )


def targeted_modules(model: Any, lora: LoraConfig, *, outside: bool = True) -> set[str]:
    """Return the names of the modules that PEFT adapts in a model with configuration ``model``.

    Args:
        outside: in a multimodal model, include modules outside the language model.

    Raises:
        ValueError: no module matches.
    """
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(model)
    if not outside:
        lora = replace(lora, exclude_modules=other_modules_pattern(empty))
    # The model is on the meta device: initialisations that compute with weights would fail.
    return set(get_peft_model(empty, replace(lora, init_lora_weights=True)).targeted_module_names)


def modules_with_weights(folder: Path) -> set[str]:
    """Return the names of the modules for which an adapter folder has weights."""
    matches = map(_LORA.match, load_peft_weights(str(folder), device="cpu"))
    return {match[1] for match in matches if match}

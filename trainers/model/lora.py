"""Check LoRA options against what vLLM loads, and translate them for PEFT."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.core.errors import ConfigError
from harness.core.vllm_classes import EMBEDDINGS, HEAD, embedding_lora_error
from trainers.model.base_model import find_base
from trainers.recipe.parts import LoraRecipe
from trainers.recipe.schema import Recipe

if TYPE_CHECKING:
    from peft import LoraConfig

SERVEABLE_INITS = ("default", "gaussian", "orthogonal")
"""Initialisations that leave the base weights unchanged."""
KNOWN_INITS = (*SERVEABLE_INITS, "pissa", "olora")
_OPTIONS = {
    "rank": "r",
    "alpha": "lora_alpha",
    "dropout": "lora_dropout",
    "rslora": "use_rslora",
    "dora": "use_dora",
    "layers": "layers_to_transform",
}
"""PEFT's names of options that are called differently in a recipe."""
_EMBEDDINGS = (f"model.{EMBEDDINGS}", f"model.language_model.{EMBEDDINGS}", "transformer.wte", HEAD)
"""Names of embeddings and output layers in models."""


def serving_problems(lora: LoraRecipe, max_rank: int, architecture: str | None) -> list[str]:
    """Return the reasons why vLLM 0.32 would refuse to load this adapter; empty if it loads.

    Args:
        max_rank: the server's ``--max-lora-rank``.
        architecture: class of the base model; None if unknown.
    """
    reasons = []
    if lora.dora:
        reasons.append("lora.dora: vLLM has no DoRA")
    if lora.bias != "none":
        reasons.append(f"lora.bias: {lora.bias}: vLLM loads no trained bias")
    if lora.modules_to_save:
        reasons.append("lora.modules_to_save: vLLM loads no full layers with an adapter")
    if lora.init not in SERVEABLE_INITS:
        reasons.append(f"lora.init: {lora.init} changes the base weights, which the server does not")
    if reason := embedding_lora_error(_targeted_embeddings(lora.targets), architecture):
        reasons.append(f"lora.targets: {reason}")
    rank = max((lora.rank, *lora.rank_pattern.values()))
    if rank > max_rank:
        reasons.append(f"lora.rank: {rank} is over max_lora_rank {max_rank} (the server's --max-lora-rank)")
    return reasons


def _targeted_embeddings(targets: str | Sequence[str]) -> list[str]:
    """Return the names in ``_EMBEDDINGS`` that match the targets, by PEFT's rules."""
    if isinstance(targets, str):
        return [name for name in _EMBEDDINGS if re.fullmatch(targets, name)]
    return [name for name in _EMBEDDINGS if any(f".{name}".endswith(f".{target}") for target in targets)]


def targets_head(lora: LoraRecipe) -> bool:
    """Return whether the output layer gets an adapter."""
    return HEAD in _targeted_embeddings(lora.targets)


def model_architecture(base: Path | str) -> str | None:
    """Return the class name in a base model's config.json; None if it has none.

    Raises:
        ConfigError: config.json cannot be read or downloaded.
    """
    from transformers.utils import cached_file

    try:
        path = cached_file(str(base), "config.json")
        architectures = json.loads(Path(str(path)).read_text(encoding="utf-8")).get("architectures")
    except (OSError, ValueError) as error:
        raise ConfigError(f"model {str(base)!r}: its config.json cannot be read: {error}") from error
    return str(architectures[0]) if architectures else None


def check_lora(recipe: Recipe) -> None:
    """Refuse, before training, LoRA options that cannot be trained or served.

    Raises:
        ConfigError: an unknown initialisation, an invalid pattern, or options that vLLM does not load in a serveable
            recipe.
    """
    lora = recipe.lora
    if lora is None:
        if recipe.adapter:
            raise ConfigError("recipe: adapter continues LoRA weights, so that lora must not be null")
        return
    if re.fullmatch(r"pissa_niter_[0-9]+", lora.init):
        # PEFT recomputes this random approximation at every load and subtracts it from the base.
        raise ConfigError(
            f"recipe: lora.init {lora.init} approximates the base's weights at random, so that resuming and merging "
            "would find another base than was trained on; use pissa"
        )
    if lora.init not in KNOWN_INITS:
        known = ", ".join(KNOWN_INITS)
        raise ConfigError(f"recipe: lora.init {lora.init!r} is not known; known: {known}")
    patterns = [("targets", lora.targets)] if isinstance(lora.targets, str) else []
    patterns += [(key, p) for key in ("rank_pattern", "alpha_pattern") for p in getattr(lora, key)]
    for key, pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ConfigError(f"recipe: lora.{key} {pattern!r} is no regular expression: {error}") from None
    if lora.layers is not None and isinstance(lora.targets, str):
        raise ConfigError(
            f"recipe: lora.layers goes with a list of modules as lora.targets, such as [q_proj], not {lora.targets!r}"
        )
    embeddings = recipe.serveable and _targeted_embeddings(lora.targets)
    architecture = model_architecture(find_base(recipe.model)) if embeddings else None
    if recipe.serveable and (reasons := serving_problems(lora, recipe.max_lora_rank, architecture)):
        remedy = _without_unserved(lora, architecture) if recipe.ttt else "Set serveable: false to train it anyway"
        raise ConfigError(f"recipe: the adapter could not be served: {'; '.join(reasons)}. {remedy}")


def _without_unserved(lora: LoraRecipe, architecture: str | None) -> str:
    """Return what to change so that an adapter of test-time training, which is served at once, can be served."""
    unserved = [name for name in _targeted_embeddings(lora.targets) if embedding_lora_error([name], architecture)]
    if not unserved:
        return "Drop what is named here: test-time training serves its adapters"
    if isinstance(lora.targets, str):
        return f"Change the pattern lora.targets so that it does not match {' and '.join(unserved)}"
    kept = [target for target in lora.targets if not any(f".{name}".endswith(f".{target}") for name in unserved)]
    return f"Drop these from the targets: --set lora.targets=[{','.join(kept)}]"


def recipe_differences(actual: LoraConfig, lora: LoraRecipe) -> list[str]:
    """Return the options of a start adapter that differ from the recipe's, as overrides (``lora.rank=8``).

    Targets are compared by the modules they reach (``start_adapter``), initialisations only if they change the base.
    """
    expected = lora_config(lora)
    names = {**_OPTIONS, **{name: name for name in ("bias", "modules_to_save", "rank_pattern", "alpha_pattern")}}
    pairs = {
        key: (as_json_value(getattr(actual, name)), as_json_value(getattr(expected, name)))
        for key, name in names.items()
    }
    pairs["init"] = _changed_base(actual.init_lora_weights), _changed_base(lora.init)
    return [f"lora.{key}={json.dumps(has)}" for key, (has, says) in pairs.items() if has != says]


def _changed_base(init: bool | str) -> str:
    """Return an initialisation that changes the base weights; ``default`` for the others, which load alike."""
    return init if isinstance(init, str) and init not in SERVEABLE_INITS else "default"


def as_json_value(value: object) -> object:
    """Return a value of a PEFT configuration in JSON types; None if it is empty."""
    if isinstance(value, (set, list, tuple, dict)):
        return (value if isinstance(value, dict) else sorted(value)) or None
    return value


def other_modules_pattern(model: Any) -> str | None:
    """Return a pattern of the modules outside the language model; None for a text-only model.

    The vision and audio parts of a multimodal model may have layers of the same names. They are neither trained nor
    served.
    """
    inner = model.base_model
    if not hasattr(inner, "language_model"):
        return None
    prefix = f"{model.base_model_prefix}." if inner is not model else ""
    others = [name for name, _ in inner.named_children() if name != "language_model"]
    return rf"{re.escape(prefix)}({'|'.join(map(re.escape, others))})(\..*)?" if others else None


def lora_config(lora: LoraRecipe, excluded: str | None = None) -> LoraConfig:
    """Return the options as a PEFT configuration.

    Args:
        excluded: pattern of modules to leave out even if they match the targets.
    """
    from peft import LoraConfig

    return LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.targets,
        exclude_modules=excluded,
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        bias=lora.bias,
        init_lora_weights=True if lora.init == "default" else lora.init,
        rank_pattern=dict(lora.rank_pattern),
        alpha_pattern=dict(lora.alpha_pattern),
        layers_to_transform=lora.layers,
        modules_to_save=lora.modules_to_save or None,
    )

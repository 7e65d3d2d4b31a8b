"""LoRA options: what vLLM loads, and what it does not."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from harness.errors import ConfigError
from trainers.recipe import LoraRecipe, Recipe

if TYPE_CHECKING:
    from peft import LoraConfig

SERVEABLE_INITS = ("default", "gaussian", "orthogonal")
KNOWN_INITS = (*SERVEABLE_INITS, "pissa", "olora")
_OPTIONS = {
    "rank": "r",
    "alpha": "lora_alpha",
    "dropout": "lora_dropout",
    "rslora": "use_rslora",
    "dora": "use_dora",
    "layers": "layers_to_transform",
}
"""Options whose names in PEFT are others."""
_EMBEDDINGS = ("embed_tokens", "lm_head", "wte")


def unserveable(lora: LoraRecipe, max_rank: int) -> list[str]:
    """Why vLLM would refuse to load this adapter; empty where it loads (vLLM 0.32)."""
    reasons = []
    if lora.dora:
        reasons.append("lora.dora: vLLM has no DoRA")
    if lora.bias != "none":
        reasons.append(f"lora.bias: {lora.bias}: vLLM loads no trained bias")
    if lora.modules_to_save:
        reasons.append("lora.modules_to_save: vLLM loads no full layers with an adapter")
    if lora.init not in SERVEABLE_INITS:
        reasons.append(f"lora.init: {lora.init} changes the base weights, which the server does not")
    targets = [lora.targets] if isinstance(lora.targets, str) else lora.targets
    if touched := [t for t in targets if any(t.endswith(name) for name in _EMBEDDINGS)]:
        reasons.append(f"lora.targets: {', '.join(touched)}: vLLM takes no adapter on embeddings or output layer")
    rank = max((lora.rank, *lora.rank_pattern.values()))
    if rank > max_rank:
        reasons.append(f"lora.rank: {rank} is over max_lora_rank {max_rank} (the server's --max-lora-rank)")
    return reasons


def check_lora(recipe: Recipe) -> None:
    """Refuse before training what could not be served after it.

    Raises:
        ConfigError: an unknown initialisation, or options that vLLM does not load in a serveable recipe.
    """
    lora = recipe.lora
    if lora is None:
        if recipe.adapter:
            raise ConfigError("recipe: adapter goes on with LoRA weights, so that lora must not be null")
        return
    if re.fullmatch(r"pissa_niter_[0-9]+", lora.init):
        # PEFT draws the approximation anew whenever it loads the adapter, and takes it off the base.
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
    if recipe.serveable and (reasons := unserveable(lora, recipe.max_lora_rank)):
        raise ConfigError(
            "recipe: the adapter could not be served: "
            + "; ".join(reasons)
            + ". Set serveable: false to train it anyway"
        )


def differences(found: LoraConfig, lora: LoraRecipe) -> list[str]:
    """What an adapter that is gone on from has and the recipe does not say, as overrides.

    Its targets are compared by its weights (``trainers.continued``), its initialisation where that changed the base.
    """
    said = lora_config(lora)
    names = {name: name for name in ("bias", "modules_to_save", "rank_pattern", "alpha_pattern")}
    names = {**_OPTIONS, **names}
    pairs = {key: (plain(getattr(found, name)), plain(getattr(said, name))) for key, name in names.items()}
    pairs["init"] = _changed_base(found.init_lora_weights), _changed_base(lora.init)
    return [f"lora.{key}={json.dumps(has)}" for key, (has, says) in pairs.items() if has != says]


def _changed_base(init: bool | str) -> str:
    """The initialisation, if it changes the base; once training has begun, all others are as the default."""
    return init if isinstance(init, str) and init not in SERVEABLE_INITS else "default"


def plain(value: object) -> object:
    """A value of a PEFT configuration as JSON has it; what is empty is None."""
    if isinstance(value, (set, list, tuple, dict)):
        return (value if isinstance(value, dict) else sorted(value)) or None
    return value


def lora_config(lora: LoraRecipe) -> LoraConfig:
    """The options as PEFT takes them."""
    from peft import LoraConfig

    return LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.targets,
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        bias=lora.bias,
        init_lora_weights=True if lora.init == "default" else lora.init,
        rank_pattern=dict(lora.rank_pattern),
        alpha_pattern=dict(lora.alpha_pattern),
        layers_to_transform=lora.layers,
        modules_to_save=lora.modules_to_save or None,
    )

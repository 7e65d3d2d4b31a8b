"""Check an adapter_config.json: what it needs that vLLM does not serve, and values that no adapter can have."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from harness.core.errors import AdapterError
from serve.registry.validation.target_modules import check_pattern

MAX_RANK = 512
_PLAIN_INITS = (None, True, False, "gaussian", "eva", "orthogonal", "mica", "lora_ga")
"""Values of init_lora_weights that leave the base weights unchanged."""
_UNSUPPORTED = {
    "use_dora": "DoRA",
    "lora_bias": "a LoRA bias",
    "modules_to_save": "fully trained modules (modules_to_save)",
    "trainable_token_indices": "trained token embeddings (trainable_token_indices)",
    "layer_replication": "layer replication",
    "alora_invocation_tokens": "activated LoRA",
    "use_qalora": "QA-LoRA",
    "use_bdlora": "block-diagonal LoRA",
    "target_parameters": "LoRA on bare parameters (target_parameters)",
    "kasa_config": "KaSA",
    "arrow_config": "Arrow routing",
    "monteclora_config": "MonteCLoRA",
}
"""Keys of adapter_config.json that vLLM does not serve, with the name for messages."""


def config_errors(config: dict[str, Any]) -> list[str]:
    """Return every reason in adapter_config.json for which the adapter cannot be served."""
    return [*_unsupported_features(config), *_wrong_ranks_and_alphas(config), *_wrong_names(config)]


def _unsupported_features(config: dict[str, Any]) -> Iterator[str]:
    """Yield what the adapter uses and vLLM does not serve."""
    yield from (f"it uses {what}, which vLLM does not serve" for key, what in _UNSUPPORTED.items() if config.get(key))
    if (kind := config.get("peft_type")) != "LORA":
        yield f"peft_type is {kind!r}, expected 'LORA'"
    if (bias := config.get("bias", "none")) != "none":
        yield f"it trains biases (bias={bias!r}), which vLLM does not serve"
    init = config.get("init_lora_weights")
    is_known = isinstance(init, (bool, str, type(None)))
    if not is_known or (init.lower() if isinstance(init, str) else init) not in _PLAIN_INITS:
        yield f"its initialisation {init!r} changed the base weights; convert it to a plain LoRA with PEFT first"


def _wrong_ranks_and_alphas(config: dict[str, Any]) -> Iterator[str]:
    """Yield which ranks, alphas and patterns of their modules are not valid."""
    ranks, alphas = (config.get(key) or {} for key in ("rank_pattern", "alpha_pattern"))
    by_pattern = ranks.items() if isinstance(ranks, dict) else [("rank_pattern", ranks)]
    for field, rank in [("r", config.get("r")), *by_pattern]:
        if type(rank) is not int or not 0 < rank <= MAX_RANK:
            yield f"rank {field} is {rank!r}, expected 1 to {MAX_RANK}"
    by_pattern = alphas.items() if isinstance(alphas, dict) else [("alpha_pattern", alphas)]
    for field, alpha in [("lora_alpha", config.get("lora_alpha")), *by_pattern]:
        if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not math.isfinite(alpha) or alpha <= 0:
            yield f"{field} is {alpha!r}, expected a positive number"
    for pattern in [p for patterns in (ranks, alphas) if isinstance(patterns, dict) for p in patterns]:
        try:
            check_pattern(pattern)
        except AdapterError as error:
            yield f"the pattern {error}"


def _wrong_names(config: dict[str, Any]) -> Iterator[str]:
    """Yield whether the names of its target modules or of its base are missing."""
    targets = config.get("target_modules")
    if not targets or not isinstance(targets, (str, list)):
        yield f"target_modules is {targets!r}, expected a list of module names or a pattern"
    base_name = config.get("base_model_name_or_path")
    if not isinstance(base_name, str) or not base_name:
        yield f"base_model_name_or_path is {base_name!r}, so that its base is unknown"

"""Write a merged model and compare it with PEFT. Imports torch, transformers and PEFT."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from peft import LoraConfig, PeftConfig, PeftModel
from peft.utils import load_peft_weights
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM

from harness.core.errors import AdapterError, ConfigError
from trainers.model.start_adapter import modules_with_weights, targeted_modules

COMPARED_TOKENS = 64
"""Length of the prompt on which base, adapter and merged model are compared."""
_LARGEST_ERROR = 0.5
"""Bound of the merged model's error, as a share of the adapter's effect on the logits."""
_ROUNDING = 1e-5
"""Error that float32 arithmetic explains, as a share of the logits."""


@dataclass(frozen=True)
class Agreement:
    """How far the logits of two models differ on a prompt of ``COMPARED_TOKENS`` tokens, as root mean squares."""

    effect: float
    """Between base and adapter, both through PEFT."""
    error: float
    """Between PEFT and the merged model."""


def write_merged(base: Path | str, adapter: Path, output: Path, dtype: str | None) -> Agreement:
    """Write the merged model into an empty folder, load it again, and return how far it differs from PEFT.

    Raises:
        ConfigError: the base cannot be loaded.
        AdapterError: the adapter does not fit or changes nothing, or the merged model differs too much and was removed.
    """
    precision = _precision(_load(base, "auto"))
    plain = _load(base, precision)
    _check_weights(adapter, plain.config)
    ids = torch.linspace(0, plain.get_input_embeddings().weight.shape[0] - 1, COMPARED_TOKENS).long()[None]
    base_logits = _logits(plain, ids)
    adapted = _logits(_with_adapter(plain, adapter, base), ids)
    del plain
    model = _load(base, dtype or "auto")
    _separate_head(model)
    merged = _with_adapter(model, adapter, base, merge=True)
    _retie_head(merged)
    output_existed = output.exists()
    merged.save_pretrained(str(output))
    written = str(next(merged.parameters()).dtype).removeprefix("torch.")
    del model, merged
    agreement = Agreement(_rms(adapted - base_logits), _rms(adapted - _logits(_load(output, precision), ids)))
    if not agreement.error <= _LARGEST_ERROR * agreement.effect + _ROUNDING * _rms(adapted):
        shutil.rmtree(output)
        if output_existed:
            output.mkdir()
        remedy = "" if written == "float32" else f"; rounding to {written} may be the cause: merge with --dtype float32"
        raise AdapterError(
            f"{adapter}: the merged model is another than the base with the adapter: its logits are off by "
            f"{agreement.error:.2g}, where the adapter changes them by {agreement.effect:.2g}{remedy}. It was removed"
        )
    return agreement


def _load(base: Path | str, dtype: Any) -> Any:
    try:
        return AutoModelForCausalLM.from_pretrained(str(base), dtype=dtype, use_safetensors=True).eval()
    except (OSError, ValueError, SafetensorError) as error:
        raise ConfigError(f"model {str(base)!r} cannot be loaded: {' '.join(str(error).split())}") from error


def _precision(model: Any) -> torch.dtype:
    """Return the dtype for the comparison: float32 if memory suffices, else the model's dtype."""
    numbers = sum(weight.numel() for weight in model.parameters())
    dtype: torch.dtype = next(model.parameters()).dtype
    return torch.float32 if 5 * numbers < psutil.virtual_memory().available else dtype


def _with_adapter(model: Any, adapter: Path, base: Path | str, *, merge: bool = False) -> Any:
    try:
        adapted = PeftModel.from_pretrained(model, str(adapter)).eval()
        return adapted.merge_and_unload(safe_merge=True) if merge else adapted
    except (RuntimeError, ValueError, SafetensorError) as error:
        raise AdapterError(f"{adapter} does not fit {str(base)!r}: {' '.join(str(error).split())[:300]}") from error


def _logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=ids).logits
    return logits.float()


def _rms(values: torch.Tensor) -> float:
    return float(values.double().square().mean().sqrt())


def _check_weights(adapter: Path, model: Any) -> None:
    """Refuse an adapter that changes nothing, or of which PEFT would silently ignore weights.

    Raises:
        AdapterError: the message names a module, or says that all of lora_B is zero.
    """
    try:
        config = PeftConfig.from_pretrained(str(adapter))
        weights = load_peft_weights(str(adapter), device="cpu")
        reached = targeted_modules(model, config) if isinstance(config, LoraConfig) else None
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise AdapterError(f"{adapter} cannot be loaded: {' '.join(str(error).split())[:300]}") from error
    if reached is None:
        return
    if differing := sorted(reached ^ modules_with_weights(adapter)):
        raise AdapterError(
            f"{adapter}: its weights are not on the modules that its adapter_config.json names; {len(differing)} "
            f"differ, such as {differing[0]}"
        )
    idle = ("lora_A", "lora_embedding_A")
    if not any(weight.any() for name, weight in weights.items() if not any(part in name for part in idle)):
        raise AdapterError(f"{adapter}: changes nothing: lora_B is zero in all of its modules")


def _separate_head(model: Any) -> None:
    """Untie the output layer from the embeddings by a copy, so that merging into one leaves the other unchanged."""
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    if head is not None and head.weight is embeddings.weight:
        head.weight = torch.nn.Parameter(embeddings.weight.detach().clone(), requires_grad=False)


def _retie_head(model: Any) -> None:
    """Tie the output layer to the embeddings again if both are still equal; else store it as a weight of its own."""
    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    if head is None or head.weight is embeddings.weight:
        return
    same = head.weight.shape == embeddings.weight.shape and torch.equal(head.weight, embeddings.weight)
    tied = same and bool(model.all_tied_weights_keys)
    for config in {id(c): c for c in (model.config, model.config.get_text_config())}.values():
        config.tie_word_embeddings = tied
    if tied:
        head.weight = embeddings.weight
    else:
        model.all_tied_weights_keys = {}

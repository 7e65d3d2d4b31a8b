"""Whether an adapter folder can be served, decided before any server sees it.

vLLM refuses some bad adapters and accepts others in silence (another base, layers that do not exist, NaN weights, which
then poison cached blocks of other requests), so every load passes through here first. NumPy only.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core.errors import AdapterError
from harness.core.vllm_classes import embedding_lora_error
from serve.registry.adapter_files import CONFIG, MANIFEST, WEIGHTS, read_config, read_object
from serve.registry.base_match import INSIST, base_mismatch, is_accepted
from serve.registry.base_model import BaseModel
from serve.registry.layer_fit import by, check_copies, check_fit, has_embedding_name
from serve.registry.safetensors_file import LARGEST, TensorInfo, count_bad_numbers, largest_number, read_header
from serve.registry.target_modules import check_pattern, check_targets, matches, some

MAX_RANK = 512
_NO_EFFECT = 1e-10
"""Largest entry of A times largest of B, below which a module's change is lost in any arithmetic."""
_KEY = re.compile(
    r"base_model\.model\.(?P<module>.{1,300})\.lora_(?:(?P<part>[AB])\.weight|embedding_(?P<embedding>[AB]))"
)
_COPY = re.compile(r"base_model\.model\.(?P<module>.{1,300})\.base_layer\.weight")
"""A copy of a layer of the base, which PEFT saves beside LoRA on embeddings and vLLM does not read."""
_PLAIN_INITS = (None, True, False, "gaussian", "eva", "orthogonal", "mica", "lora_ga")
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


@dataclass(frozen=True, slots=True)
class AdapterFacts:
    """What an adapter is.

    Attributes:
        rank: the largest.
        base: the base that it names.
        targets: the kinds of module that it changes.
        size: bytes of its weights.
        warnings: what a user should know of it, though it can be served.
    """

    rank: int
    base: str
    targets: tuple[str, ...]
    size: int
    warnings: tuple[str, ...] = ()


def validate_adapter(folder: Path, base: BaseModel | None = None, max_rank: int | None = None) -> AdapterFacts:
    """Check an adapter folder as PEFT writes it.

    Args:
        folder: holds adapter_config.json and adapter_model.safetensors; other files are ignored.
        base: what it must fit; layers and shapes are not checked where it is None or its weights are not at hand.
        max_rank: the largest rank that the server can take.

    Raises:
        AdapterError: with every reason found in the configuration, or the first damaged tensor.
    """
    config = read_config(folder)
    reasons = _config_reasons(config)
    manifest = read_object(folder / MANIFEST) if (folder / MANIFEST).is_file() else {}
    warnings = []
    if base is not None and not is_accepted(folder, base):
        reason, warning = base_mismatch(config, manifest, base)
        reasons += [f"{reason}; {INSIST}"] if reason else []
        warnings += [warning] if warning else []
    facts_base = str(config.get("base_model_name_or_path") or "")
    if reasons:
        raise AdapterError(f"{folder}: cannot be served: {'; '.join(reasons)}")
    weights = folder / WEIGHTS
    if not weights.is_file():
        pickled = (folder / "adapter_model.bin").exists()
        why = (
            "adapter_model.bin is a pickle, which can run code; save it with safe_serialization=True"
            if pickled
            else "missing"
        )
        raise AdapterError(f"{weights}: {why}")
    tensors = read_header(weights)
    modules = _pair_up(weights, tensors)
    rank = max(_module_rank(weights, module, a, b, config) for module, (a, b) in modules.items())
    if max_rank is not None and rank > max_rank:
        raise AdapterError(f"{folder}: rank {rank} is above this server's --max-lora-rank {max_rank}")
    if base is not None:
        if reason := embedding_lora_error(modules, base.architecture):
            raise AdapterError(f"{weights}: {reason}")
        if config.get("ensure_weight_tying") and any(has_embedding_name(module, head=True) for module in modules):
            raise AdapterError(
                f"{weights}: its LoRA is shared by embeddings and output layer (ensure_weight_tying), where vLLM has "
                "one for each; train it without"
            )
        if base.tensors:
            check_fit(weights, modules, base)
            check_copies(weights, {m["module"]: tensors[m[0]] for m in map(_COPY.fullmatch, tensors) if m}, base)
    warnings += check_targets(folder, config, sorted(modules), base)
    for name, tensor in tensors.items():
        if bad := count_bad_numbers(weights, tensor):
            found = f"{bad} of {math.prod(tensor.shape)} numbers of {name}"
            raise AdapterError(f"{weights}: {found} are NaN, infinite or beyond {LARGEST:.0f}")
    targets = tuple(sorted({module.rsplit(".", 1)[-1] for module in modules}))
    warnings += _check_effect(weights, modules)
    return AdapterFacts(rank, facts_base, targets, weights.stat().st_size, tuple(warnings))


def _config_reasons(config: dict[str, Any]) -> list[str]:
    reasons = [f"it uses {what}, which vLLM does not serve" for key, what in _UNSUPPORTED.items() if config.get(key)]
    if (kind := config.get("peft_type")) != "LORA":
        reasons.append(f"peft_type is {kind!r}, expected 'LORA'")
    if (bias := config.get("bias", "none")) != "none":
        reasons.append(f"it trains biases (bias={bias!r}), which vLLM does not serve")
    init = config.get("init_lora_weights")
    if (
        not isinstance(init, (bool, str, type(None)))
        or (init.lower() if isinstance(init, str) else init) not in _PLAIN_INITS
    ):
        reasons.append(
            f"its initialisation {init!r} changed the base weights; convert it to a plain LoRA with PEFT first"
        )
    ranks = config.get("rank_pattern") or {}
    for where, rank in [
        ("r", config.get("r")),
        *(ranks.items() if isinstance(ranks, dict) else [("rank_pattern", ranks)]),
    ]:
        if type(rank) is not int or not 0 < rank <= MAX_RANK:
            reasons.append(f"rank {where} is {rank!r}, expected 1 to {MAX_RANK}")
    alphas = config.get("alpha_pattern") or {}
    for where, alpha in [
        ("lora_alpha", config.get("lora_alpha")),
        *(alphas.items() if isinstance(alphas, dict) else [("alpha_pattern", alphas)]),
    ]:
        if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not math.isfinite(alpha) or alpha <= 0:
            reasons.append(f"{where} is {alpha!r}, expected a positive number")
    for pattern in [p for found in (ranks, alphas) if isinstance(found, dict) for p in found]:
        try:
            check_pattern(pattern)
        except AdapterError as error:
            reasons.append(f"the pattern {error}")
    targets = config.get("target_modules")
    if not targets or not isinstance(targets, (str, list)):
        reasons.append(f"target_modules is {targets!r}, expected a list of module names or a pattern")
    named = config.get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        reasons.append(f"base_model_name_or_path is {named!r}, so that its base is unknown")
    return reasons


def _check_effect(weights: Path, modules: dict[str, tuple[TensorInfo, TensorInfo]]) -> list[str]:
    """Refuse an adapter that changes nothing; a warning where a part of it does not.

    Raises:
        AdapterError: in every module lora_A or lora_B is zero.
    """
    idle = [m for m, ab in modules.items() if math.prod(largest_number(weights, one) for one in ab) < _NO_EFFECT]
    if len(idle) == len(modules):
        raise AdapterError(
            f"{weights}: changes nothing: lora_A or lora_B is zero in all of its {len(modules)} modules. Was it saved "
            "before training, or by DeepSpeed or FSDP without gathering its weights?"
        )
    return [f"{len(idle)} of {len(modules)} modules change nothing: lora_B is zero ({some(idle)})"] if idle else []


def _pair_up(path: Path, tensors: dict[str, TensorInfo]) -> dict[str, tuple[TensorInfo, TensorInfo]]:
    """Module name to its A and B matrices."""
    parts: dict[str, dict[str, TensorInfo]] = {}
    for name, tensor in tensors.items():
        match = _KEY.fullmatch(name)
        copied = _COPY.fullmatch(name)
        if match is None and (copied is None or not has_embedding_name(copied["module"], head=True)):
            raise AdapterError(
                f"{path}: {name}: not a LoRA matrix (expected base_model.model.MODULE.lora_A.weight or lora_B)"
            )
        if tensor.dtype not in ("F64", "F32", "F16", "BF16"):
            raise AdapterError(f"{path}: {name}: dtype {tensor.dtype} is not floating point")
        if match is None:
            continue
        if has_embedding_name(match["module"]) != (match["embedding"] is not None):
            raise AdapterError(
                f"{path}: {name}: lora_embedding_A and lora_embedding_B are for embeddings, and only they"
            )
        parts.setdefault(match["module"], {})[match["part"] or match["embedding"]] = tensor
    if not parts:
        raise AdapterError(f"{path}: holds no LoRA matrix at all")
    for module, found in parts.items():
        if len(found) != 2:
            raise AdapterError(f"{path}: {module} has lora_{next(iter(found))} but not its partner")
    return {module: (found["A"], found["B"]) for module, found in parts.items()}


def _module_rank(path: Path, module: str, a: TensorInfo, b: TensorInfo, config: dict[str, Any]) -> int:
    if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != b.shape[1]:
        raise AdapterError(
            f"{path}: {module}: A {by(a.shape)} and B {by(b.shape)} do not multiply (expected r x in, out x r)"
        )
    patterns = config.get("rank_pattern") or {}
    expected = next((r for p, r in patterns.items() if matches(p, module)), config["r"])
    if a.shape[0] != expected:
        raise AdapterError(f"{path}: {module}: rank {a.shape[0]}, but {CONFIG} says {expected}")
    return a.shape[0]

"""Decide whether an adapter folder can be served, before any server loads it.

vLLM refuses some bad adapters but silently accepts others (trained on another base, with layers that do not exist, or
with NaN weights, which then corrupt cached blocks of other requests). Every load is therefore validated here first,
with NumPy only.
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
from serve.registry.base_model import BaseModel
from serve.registry.safetensors_file import LARGEST, TensorInfo, count_bad_numbers, largest_number, read_header
from serve.registry.validation.adapter_config import config_errors
from serve.registry.validation.base_match import ACCEPT_HINT, base_mismatch, is_accepted
from serve.registry.validation.layer_fit import as_text, check_copies, check_fit, has_embedding_name
from serve.registry.validation.target_modules import check_targets, list_some, pattern_applies

_NO_EFFECT = 1e-10
"""If the largest entry of A times the largest of B is below this, a module's change vanishes in any arithmetic."""
_KEY = re.compile(
    r"base_model\.model\.(?P<module>.{1,300})\.lora_(?:(?P<part>[AB])\.weight|embedding_(?P<embedding>[AB]))"
)
_COPY = re.compile(r"base_model\.model\.(?P<module>.{1,300})\.base_layer\.weight")
"""A copy of a base layer, which PEFT saves beside LoRA on embeddings and vLLM ignores."""
Pairs = dict[str, tuple[TensorInfo, TensorInfo]]
"""Module name to its A (r x in) and B (out x r) matrices."""


@dataclass(frozen=True, slots=True)
class AdapterFacts:
    """Properties of a valid adapter.

    Attributes:
        rank: the largest rank of its modules.
        base: the base model that its configuration names.
        targets: the kinds of modules that it changes, such as "q_proj".
        size: bytes of its weights file.
        warnings: lines for the user about an adapter that can be served nevertheless.
    """

    rank: int
    base: str
    targets: tuple[str, ...]
    size: int
    warnings: tuple[str, ...] = ()


def validate_adapter(folder: Path, base: BaseModel | None = None, max_rank: int | None = None) -> AdapterFacts:
    """Validate an adapter folder in PEFT's layout and return its properties.

    Args:
        folder: holds adapter_config.json and adapter_model.safetensors; other files are ignored.
        base: the model that it must fit. Layers and shapes are not checked if it is None or its weights are not on
            disk.
        max_rank: the largest rank that the server accepts.

    Raises:
        AdapterError: every reason in the configuration, or the first damaged tensor.
    """
    config = read_config(folder)
    warnings = _check_config(folder, config, base)
    weights = folder / WEIGHTS
    if not weights.is_file():
        is_pickled = (folder / "adapter_model.bin").exists()
        pickle = "adapter_model.bin is a pickle, which can run code; save it with safe_serialization=True"
        raise AdapterError(f"{weights}: {pickle if is_pickled else 'missing'}")
    tensors = read_header(weights)
    modules = _pair_up(weights, tensors)
    rank = max(_module_rank(weights, module, a, b, config) for module, (a, b) in modules.items())
    if max_rank is not None and rank > max_rank:
        raise AdapterError(f"{folder}: rank {rank} is above this server's --max-lora-rank {max_rank}")
    if base is not None:
        _check_layers(weights, config, tensors, modules, base)
    warnings += check_targets(folder, config, sorted(modules), base)
    for name, tensor in tensors.items():
        if bad := count_bad_numbers(weights, tensor):
            count = f"{bad} of {math.prod(tensor.shape)} numbers of {name}"
            raise AdapterError(f"{weights}: {count} are NaN, infinite or beyond {LARGEST:.0f}")
    targets = tuple(sorted({module.rsplit(".", 1)[-1] for module in modules}))
    warnings += _check_effect(weights, modules)
    base_name = str(config["base_model_name_or_path"])
    return AdapterFacts(rank, base_name, targets, weights.stat().st_size, tuple(warnings))


def _check_config(folder: Path, config: dict[str, Any], base: BaseModel | None) -> list[str]:
    """Check the configuration and the base that it names; return warnings.

    Raises:
        AdapterError: every reason for which the adapter cannot be served.
    """
    reasons, warnings = config_errors(config), []
    manifest = read_object(folder / MANIFEST) if (folder / MANIFEST).is_file() else {}
    if base is not None and not is_accepted(folder, base):
        reason, warning = base_mismatch(config, manifest, base)
        reasons += [f"{reason}; {ACCEPT_HINT}"] if reason else []
        warnings += [warning] if warning else []
    if reasons:
        raise AdapterError(f"{folder}: cannot be served: {'; '.join(reasons)}")
    return warnings


def _check_layers(
    weights: Path, config: dict[str, Any], tensors: dict[str, TensorInfo], modules: Pairs, base: BaseModel
) -> None:
    """Check that vLLM serves LoRA on these modules of the base, and that their shapes fit.

    Raises:
        AdapterError: vLLM does not serve LoRA on a module, or a shape does not fit.
    """
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


def _check_effect(weights: Path, modules: Pairs) -> list[str]:
    """Refuse an adapter that changes nothing; return a warning if some of its modules change nothing.

    Raises:
        AdapterError: lora_A or lora_B is zero in every module.
    """
    unchanged = [m for m, ab in modules.items() if math.prod(largest_number(weights, one) for one in ab) < _NO_EFFECT]
    if len(unchanged) == len(modules):
        raise AdapterError(
            f"{weights}: changes nothing: lora_A or lora_B is zero in all of its {len(modules)} modules. Was it saved "
            "before training, or by DeepSpeed or FSDP without gathering its weights?"
        )
    if not unchanged:
        return []
    return [f"{len(unchanged)} of {len(modules)} modules change nothing: lora_B is zero ({list_some(unchanged)})"]


def _pair_up(path: Path, tensors: dict[str, TensorInfo]) -> Pairs:
    """Return each module's A and B matrices; copies of base layers are left out.

    Raises:
        AdapterError: a tensor is no LoRA matrix, or lacks its partner.
    """
    parts: dict[str, dict[str, TensorInfo]] = {}
    for name, tensor in tensors.items():
        match = _KEY.fullmatch(name)
        copy = _COPY.fullmatch(name)
        if match is None and (copy is None or not has_embedding_name(copy["module"], head=True)):
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
    for module, pair in parts.items():
        if len(pair) != 2:
            raise AdapterError(f"{path}: {module} has lora_{next(iter(pair))} but not its partner")
    return {module: (pair["A"], pair["B"]) for module, pair in parts.items()}


def _module_rank(path: Path, module: str, a: TensorInfo, b: TensorInfo, config: dict[str, Any]) -> int:
    """Return a module's rank, which must agree with its matrices' shapes and the configuration.

    Raises:
        AdapterError: it does not.
    """
    if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != b.shape[1]:
        shapes = f"A {as_text(a.shape)} and B {as_text(b.shape)}"
        raise AdapterError(f"{path}: {module}: {shapes} do not multiply (expected r x in, out x r)")
    patterns = config.get("rank_pattern") or {}
    expected = next((r for p, r in patterns.items() if pattern_applies(p, module)), config["r"])
    if a.shape[0] != expected:
        raise AdapterError(f"{path}: {module}: rank {a.shape[0]}, but {CONFIG} says {expected}")
    return a.shape[0]

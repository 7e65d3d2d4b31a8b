"""Whether an adapter folder can be served, decided before any server sees it.

vLLM refuses some bad adapters and accepts others in silence (another base, layers that do not exist, NaN weights, which
then poison cached blocks of other requests), so every load passes through here first. NumPy only.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import AdapterError
from serve.base_model import BaseModel
from serve.patterns import check_pattern, matches
from serve.tensorfile import LARGEST, TensorInfo, count_bad_numbers, read_header

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
MANIFEST = "manifest.json"
MAX_RANK = 512
_MAX_JSON = 1 << 20
_KEY = re.compile(r"base_model\.model\.(?P<module>.{1,300})\.lora_(?P<part>[AB])\.weight")
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
}


@dataclass(frozen=True, slots=True)
class AdapterFacts:
    """What an adapter is: its largest rank, the base it names, the kinds of module it changes, its size in bytes."""

    rank: int
    base: str
    targets: tuple[str, ...]
    size: int


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
    if base is not None and (reason := _other_base(config, folder, base)):
        reasons.append(reason)
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
    if base is not None and base.tensors:
        _check_fit(weights, modules, base)
    for name, tensor in tensors.items():
        if bad := count_bad_numbers(weights, tensor):
            found = f"{bad} of {math.prod(tensor.shape)} numbers of {name}"
            raise AdapterError(f"{weights}: {found} are NaN, infinite or beyond {LARGEST:.0f}")
    targets = tuple(sorted({module.rsplit(".", 1)[-1] for module in modules}))
    return AdapterFacts(rank, facts_base, targets, weights.stat().st_size)


def read_config(folder: Path) -> dict[str, Any]:
    """adapter_config.json of a folder.

    Raises:
        AdapterError: the folder or the file is missing, or it is no JSON object.
    """
    if not folder.is_dir():
        raise AdapterError(f"{folder}: no such adapter folder")
    return read_object(folder / CONFIG)


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object from a file of at most 1 MiB.

    Raises:
        AdapterError: missing, too large, or not an object.
    """
    try:
        if path.stat().st_size > _MAX_JSON:
            raise AdapterError(f"{path}: {path.stat().st_size} bytes is too large for a configuration")
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise AdapterError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise AdapterError(f"{path}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise AdapterError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


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


def _other_base(config: dict[str, Any], folder: Path, base: BaseModel) -> str | None:
    """Why the adapter is not of this base: by the digest in its trainer's manifest, or else by the base's name."""
    manifest = read_object(folder / MANIFEST) if (folder / MANIFEST).is_file() else {}
    recorded = manifest.get("base")
    digest = recorded.get("digest") if isinstance(recorded, dict) else None
    # A folder is recorded by 16 digits of its content, a hub model by the 40 of its commit.
    length = len(digest) if isinstance(digest, str) else 0
    ours = base.hash if length == 16 else base.commit if length == 40 else None
    named = config.get("base_model_name_or_path")
    if ours is not None:
        return None if digest == ours else f"it was trained on {named!r} of digest {digest}, but this base has {ours}"
    if isinstance(named, str) and named and not base.is_named(named):
        return f"it was trained on {named!r}, but this base is {base.name!r}"
    return None


def _pair_up(path: Path, tensors: dict[str, TensorInfo]) -> dict[str, tuple[TensorInfo, TensorInfo]]:
    """Module name to its A and B matrices."""
    parts: dict[str, dict[str, TensorInfo]] = {}
    for name, tensor in tensors.items():
        if "lora_embedding" in name or re.search(r"\.(embed_tokens|lm_head)\.lora_", name):
            raise AdapterError(f"{path}: {name}: vLLM does not serve LoRA on embeddings or lm_head")
        match = _KEY.fullmatch(name)
        if match is None:
            raise AdapterError(
                f"{path}: {name}: not a LoRA matrix (expected base_model.model.MODULE.lora_A.weight or lora_B)"
            )
        if tensor.dtype not in ("F64", "F32", "F16", "BF16"):
            raise AdapterError(f"{path}: {name}: dtype {tensor.dtype} is not floating point")
        parts.setdefault(match["module"], {})[match["part"]] = tensor
    if not parts:
        raise AdapterError(f"{path}: holds no LoRA matrix at all")
    for module, found in parts.items():
        if len(found) != 2:
            raise AdapterError(f"{path}: {module} has lora_{next(iter(found))} but not its partner")
    return {module: (found["A"], found["B"]) for module, found in parts.items()}


def _module_rank(path: Path, module: str, a: TensorInfo, b: TensorInfo, config: dict[str, Any]) -> int:
    if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != b.shape[1]:
        raise AdapterError(
            f"{path}: {module}: A {_by(a.shape)} and B {_by(b.shape)} do not multiply (expected r x in, out x r)"
        )
    patterns = config.get("rank_pattern") or {}
    expected = next((r for p, r in patterns.items() if matches(p, module)), config["r"])
    if a.shape[0] != expected:
        raise AdapterError(f"{path}: {module}: rank {a.shape[0]}, but {CONFIG} says {expected}")
    return a.shape[0]


def _check_fit(path: Path, modules: dict[str, tuple[TensorInfo, TensorInfo]], base: BaseModel) -> None:
    known = {
        name.removeprefix("model.").rpartition(".")[0]: tensor
        for name, tensor in base.tensors.items()
        if _is_weight(name)
    }
    for module, (a, b) in modules.items():
        weight = known.get(module.removeprefix("model."))
        if weight is None:
            raise AdapterError(f"{path}: {module}: {base.name} has no such module{_layer_hint(module, base.layers)}")
        if weight.dtype not in ("F32", "F16", "BF16", "F64") or len(weight.shape) != 2:
            continue  # a quantised base: its shapes say nothing about the layer's width
        out, inner = weight.shape
        if a.shape[1] != inner or b.shape[0] != out:
            raise AdapterError(
                f"{path}: {module}: fits a layer of {b.shape[0]}x{a.shape[1]}, but that of {base.name} is {out}x{inner}"
            )


def _is_weight(name: str) -> bool:
    return name.endswith((".weight", ".qweight"))


def _layer_hint(module: str, layers: int | None) -> str:
    match = re.search(r"layers\.(\d+)\.", module)
    if match and layers is not None and int(match[1]) >= layers:
        return f" (layer {match[1]}, but its layers are 0-{layers - 1})"
    return ""


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))

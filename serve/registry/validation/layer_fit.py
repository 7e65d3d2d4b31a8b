"""Check that an adapter's layers exist in a base model, with equal shapes, under the names that vLLM uses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from harness.core.errors import AdapterError
from harness.core.vllm_classes import EMBEDDINGS, HEAD
from serve.registry.base_model import LANGUAGE_MODEL, BaseModel
from serve.registry.safetensors_file import TensorInfo, are_close

_TOWERS = re.compile(
    r"(?:.*\.)?(?:vision_tower|vision_model|vision_encoder|visual|audio_tower|multi_modal_projector|embed_(?:vision|audio))\."
)


def check_fit(path: Path, modules: Mapping[str, tuple[TensorInfo, TensorInfo]], base: BaseModel) -> None:
    """Check that the base has every module of the adapter, with the same shape.

    Args:
        path: the adapter's weights file, for messages.
        modules: module name to its A (r x in) and B (out x r) matrices.

    Raises:
        AdapterError: which module does not fit.
    """
    weights = _weights_by_module(base)
    for module, (a, b) in modules.items():
        if _TOWERS.match(f"{module}."):
            raise AdapterError(
                f"{path}: {module} is in the vision or audio part of {base.name}; adapters are served on "
                "the language model only"
            )
        weight = weights.get(_plain_name(module, base))
        if weight is None:
            raise AdapterError(f"{path}: {module}: {base.name} has no such module{_hint(module, base)}")
        if weight.dtype not in ("F32", "F16", "BF16", "F64") or len(weight.shape) != 2:
            continue  # the packed shape of a quantised weight does not tell the layer's width
        out, inner = reversed(weight.shape) if has_embedding_name(module) else weight.shape
        if a.shape[1] != inner or b.shape[0] != out:
            raise AdapterError(
                f"{path}: {module}: fits a layer of {b.shape[0]}x{a.shape[1]}, but that of {base.name} is {out}x{inner}"
            )


def check_copies(path: Path, copies: Mapping[str, TensorInfo], base: BaseModel) -> None:
    """Check that an adapter's copies of the embeddings or the output layer equal those of the base.

    vLLM ignores such copies, so an adapter trained on changed (for example resized) embeddings would answer wrongly.

    Args:
        copies: module name to the copy in the adapter's weights file.

    Raises:
        AdapterError: a copy differs.
    """
    weights = _weights_by_module(base)
    for module, copy in copies.items():
        original = weights.get(_plain_name(module, base))
        if original is None or original.dtype not in ("F32", "F16", "BF16", "F64"):
            continue
        if original.shape != copy.shape or not are_close((path, copy), (base.file_of(original), original)):
            shapes = f"{as_text(copy.shape)} and {as_text(original.shape)}"
            raise AdapterError(
                f"{path}: holds another {module} than {base.name} ({shapes}), which vLLM would not use: "
                "merge the adapter into its base, or train it on this one"
            )


def has_embedding_name(module: str, *, head: bool = False) -> bool:
    """Return whether a module's name is that of an embedding or, with ``head``, of the output layer."""
    return module.rpartition(".")[2] in {EMBEDDINGS, "wte", *({HEAD} if head else ())}


def as_text(shape: tuple[int, ...]) -> str:
    """Return a shape as text, such as "8x64"."""
    return "x".join(map(str, shape))


def _weights_by_module(base: BaseModel) -> dict[str, TensorInfo]:
    """Return the weights of a base by module name, without the prefix before ``layers``, which varies.

    A tied output layer is listed with the weights of the embeddings.
    """
    weights = {
        LANGUAGE_MODEL.sub("", name.rpartition(".")[0], 1).removeprefix("model."): tensor
        for name, tensor in base.tensors.items()
        if name.endswith((".weight", ".qweight"))
    }
    if EMBEDDINGS in weights and base.has_tied_head:
        weights.setdefault(HEAD, weights[EMBEDDINGS])
    return weights


def _plain_name(module: str, base: BaseModel) -> str:
    """Return a module's name as in ``_weights_by_module``, or a name that is not in it if vLLM would not find it.

    In a composite model vLLM finds only the layers under ``language_model``.
    """
    match = LANGUAGE_MODEL.match(module)
    if (match is None) == base.is_composite and module != HEAD:
        return f"?{module}"
    return module[match.end() :] if match else module.removeprefix("model.")


def _hint(module: str, base: BaseModel) -> str:
    """Return, for the error message, why a module may be missing: the layer's number or the prefix."""
    match = re.search(r"layers\.(\d+)\.", module)
    if match and base.layers is not None and int(match[1]) >= base.layers:
        return f" (layer {match[1]}, but its layers are 0-{base.layers - 1})"
    prefix = "model.language_model" if base.is_composite else "model"
    return f" (vLLM finds its layers under {prefix}.layers)" if match else ""

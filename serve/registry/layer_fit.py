"""Whether the layers of an adapter are those of a base model, under the names by which vLLM finds them."""

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
    """Check that the base has the modules of an adapter, and of the same shapes.

    Raises:
        AdapterError: which module does not fit.
    """
    known = _weights(base)
    for module, (a, b) in modules.items():
        if _TOWERS.match(f"{module}."):
            raise AdapterError(
                f"{path}: {module} is in the part of {base.name} that reads pictures or sound; adapters are served on "
                "the language model only"
            )
        weight = known.get(_plain(module, base))
        if weight is None:
            raise AdapterError(f"{path}: {module}: {base.name} has no such module{_hint(module, base)}")
        if weight.dtype not in ("F32", "F16", "BF16", "F64") or len(weight.shape) != 2:
            continue  # a quantised base: its shapes say nothing about the layer's width
        out, inner = reversed(weight.shape) if has_embedding_name(module) else weight.shape
        if a.shape[1] != inner or b.shape[0] != out:
            raise AdapterError(
                f"{path}: {module}: fits a layer of {b.shape[0]}x{a.shape[1]}, but that of {base.name} is {out}x{inner}"
            )


def check_copies(path: Path, copies: Mapping[str, TensorInfo], base: BaseModel) -> None:
    """Check that copies of embeddings or output layer in an adapter's file are the base's: vLLM does not read them.

    Raises:
        AdapterError: one is another, as after training on resized embeddings.
    """
    known = _weights(base)
    for module, copy in copies.items():
        found = known.get(_plain(module, base))
        if found is None or found.dtype not in ("F32", "F16", "BF16", "F64"):
            continue
        if found.shape != copy.shape or not are_close((path, copy), (base.file_of(found), found)):
            raise AdapterError(
                f"{path}: holds another {module} than {base.name} ({by(copy.shape)} and {by(found.shape)}), which vLLM "
                "would not use: merge the adapter into its base, or train it on this one"
            )


def has_embedding_name(module: str, *, head: bool = False) -> bool:
    """Whether a module is an embedding by its name, or, with ``head``, the output layer."""
    return module.rpartition(".")[2] in {EMBEDDINGS, "wte", *({HEAD} if head else ())}


def by(shape: tuple[int, ...]) -> str:
    """A shape in words, such as 8x64."""
    return "x".join(map(str, shape))


def _weights(base: BaseModel) -> dict[str, TensorInfo]:
    """The weights of a base by module, without what stands before ``layers`` in a checkpoint of any age."""
    known = {
        LANGUAGE_MODEL.sub("", name.rpartition(".")[0], 1).removeprefix("model."): tensor
        for name, tensor in base.tensors.items()
        if name.endswith((".weight", ".qweight"))
    }
    if EMBEDDINGS in known and base.has_tied_head:
        known.setdefault(HEAD, known[EMBEDDINGS])
    return known


def _plain(module: str, base: BaseModel) -> str:
    """The name of an adapter's module as in ``_weights``; one that vLLM would not find gets no such name.

    With a model that reads pictures too, vLLM finds the layers under ``language_model`` only.
    """
    match = LANGUAGE_MODEL.match(module)
    if (match is None) == base.is_composite and module != HEAD:
        return f"?{module}"
    return module[match.end() :] if match else module.removeprefix("model.")


def _hint(module: str, base: BaseModel) -> str:
    match = re.search(r"layers\.(\d+)\.", module)
    if match and base.layers is not None and int(match[1]) >= base.layers:
        return f" (layer {match[1]}, but its layers are 0-{base.layers - 1})"
    where = "model.language_model" if base.is_composite else "model"
    return f" (vLLM finds its layers under {where}.layers)" if match else ""

"""Write tiny models and LoRA adapters with NumPy alone, for tests of the server."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

HIDDEN, MLP, HEADS, LAYERS = 64, 96, 2, 2
PROJECTIONS = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (HIDDEN, HIDDEN),
    "self_attn.v_proj": (HIDDEN, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (MLP, HIDDEN),
    "mlp.up_proj": (MLP, HIDDEN),
    "mlp.down_proj": (HIDDEN, MLP),
}
"""Weight shapes (out, in) of one layer."""


def write_safetensors(path: Path, tensors: Mapping[str, np.ndarray], dtype: str = "F32") -> None:
    """Write arrays as F32, F16 or BF16 (truncated) into a safetensors file."""
    header: dict[str, Any] = {}
    parts: list[bytes] = []
    offset = 0
    for name, array in tensors.items():
        values = array.astype("<f4")
        if dtype == "BF16":
            raw = (values.view("<u4") >> 16).astype("<u2").tobytes()
        else:
            with np.errstate(over="ignore"):
                raw = values.astype({"F32": "<f4", "F16": "<f2"}[dtype]).tobytes()
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [offset, offset + len(raw)]}
        parts.append(raw)
        offset += len(raw)
    head = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(head)) + head + b"".join(parts))


def make_base(folder: Path, *, layers: int = LAYERS, vocabulary: int = 40) -> Path:
    """Write a Qwen2 model folder with random weights and no tokenizer."""
    folder.mkdir(parents=True)
    config = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_size": HIDDEN,
        "intermediate_size": MLP,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "num_hidden_layers": layers,
        "vocab_size": vocabulary,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
        "dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config))
    random = np.random.default_rng(0)
    tensors = {"model.embed_tokens.weight": random.normal(size=(vocabulary, HIDDEN))}
    for layer in range(layers):
        for name, shape in PROJECTIONS.items():
            tensors[f"model.layers.{layer}.{name}.weight"] = random.normal(size=shape)
    write_safetensors(folder / "model.safetensors", tensors, "BF16")
    return folder


def make_adapter(
    folder: Path, seed: int = 0, *, rank: int = 4, base: str = "toy-base", layers: int = LAYERS, **config: Any
) -> Path:
    """Write a random LoRA adapter for the attention layers of ``make_base``.

    Args:
        config: fields of adapter_config.json to change.
    """
    folder.mkdir(parents=True)
    settings: dict[str, Any] = {
        "peft_type": "LORA",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": 2 * rank,
        "target_modules": ["q_proj", "v_proj"],
        "bias": "none",
        "init_lora_weights": True,
    }
    (folder / "adapter_config.json").write_text(json.dumps(settings | config))
    write_safetensors(folder / "adapter_model.safetensors", lora_tensors(seed, rank, layers))
    return folder


def lora_tensors(seed: int, rank: int = 4, layers: int = LAYERS) -> dict[str, np.ndarray]:
    """Return the weights of ``make_adapter`` by name."""
    random = np.random.default_rng(seed)
    tensors: dict[str, np.ndarray] = {}
    for layer in range(layers):
        for name in ("self_attn.q_proj", "self_attn.v_proj"):
            out, inner = PROJECTIONS[name]
            prefix = f"base_model.model.model.layers.{layer}.{name}"
            tensors[f"{prefix}.lora_A.weight"] = random.normal(size=(rank, inner)).astype(np.float32)
            tensors[f"{prefix}.lora_B.weight"] = random.normal(size=(out, rank)).astype(np.float32)
    return tensors

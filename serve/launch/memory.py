"""Check before the start that a server's memory is available: its KV cache on a CPU, or its share of the GPUs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from harness.core.errors import ConfigError, ServerError
from harness.core.gpus import Gpu
from serve.launch.dtypes import FLOAT32
from serve.launch.extra_options import option_value
from serve.registry.base_model import BaseModel

GIB = 1 << 30
_ELSEWHERE = ("--nnodes", "--distributed-executor-backend", "--data-parallel-backend", "--data-parallel-size-local")
"""vLLM options with which engines may run on other machines."""


def cpu_cache(
    base: BaseModel, dtype: str, gib: float | None, length: int | None, engines: int, free_memory: int
) -> int:
    """Return the size of each CPU engine's KV cache in bytes.

    Args:
        dtype: in which the server computes.
        gib: the requested size in GiB; None chooses room for four of the longest sequences, at least 1 GiB and at
            most a quarter of the free memory.
        length: the longest sequence in tokens, if known.
        engines: how many engines share the memory.
        free_memory: in bytes.

    Raises:
        ServerError: it exceeds the free memory, or cannot hold one sequence.
    """
    size = int((gib or _default_gib(base, free_memory // engines, length)) * GIB)
    if engines * size > free_memory:
        each = f" for each of {engines} engines" if engines > 1 else ""
        raise ServerError(
            f"the KV cache of {size / GIB:.1f} GiB{each} does not fit: {free_memory / GIB:.1f} GiB of "
            "memory are free; ask for less with --kv-cache-gib, or end other programs"
        )
    if length is not None and (needed := length * _bytes_per_token(base, dtype)) > size:
        raise ServerError(
            f"a KV cache of {size / GIB:.2f} GiB does not hold one sequence of {length} tokens, which takes "
            f"{needed / GIB:.2f} GiB; raise --kv-cache-gib or lower --max-model-len"
        )
    return size


def check_gpus(gpus: Sequence[Gpu] | None, share: float, engines: int, extra: Sequence[str]) -> None:
    """Refuse a server that needs more GPUs or GPU memory than are free, which vLLM would report minutes later.

    vLLM requires ``share`` of each GPU's memory to be free when it starts (``request_memory``), so two servers can
    share
    a GPU only if each is given a part.

    Args:
        gpus: the GPUs that the server sees, in its order; None if unknown, which skips the check.
        share: of each GPU's memory, between 0 and 1.
        engines: --data-parallel-size.
        extra: the options after ``--``, which take precedence.

    Raises:
        ConfigError: the options need more GPUs than there are.
        ServerError: other programs hold the memory; the message says how to share a GPU.
    """
    if gpus is None or any(option_value(extra, option) for option in _ELSEWHERE):
        return
    try:
        split = [int(option_value(extra, *names) or 1) for names in _SPLITS]
        share = float(option_value(extra, "--gpu-memory-utilization") or share)
    except ValueError:  # vLLM's parser will say so
        return
    needed = engines * math.prod(split)
    if needed > len(gpus):
        raise ConfigError(
            f"{needed} GPUs are asked for (--data-parallel-size {engines}, and {math.prod(split)} for each engine), "
            f"but a server sees {len(gpus)}; ask for fewer, or look at CUDA_VISIBLE_DEVICES"
        )
    for gpu in gpus[:needed]:
        if gpu.total and gpu.free is not None and gpu.free < share * gpu.total:
            raise ServerError(_occupied(gpu, share, gpu.total, gpu.free))


_SPLITS = (("--tensor-parallel-size", "-tp"), ("--pipeline-parallel-size", "-pp"))
"""vLLM options that split one engine over several GPUs, with their short forms."""


def _occupied(gpu: Gpu, share: float, total: int, free: int) -> str:
    """Return the message for a GPU without enough free memory."""
    left = math.floor(100 * free / total) / 100
    return (
        f"GPU {gpu.index} ({gpu.name}): {free / GIB:.1f} of {total / GIB:.1f} GiB are free, and this server would take "
        f"{share * total / GIB:.1f} (--gpu-memory {share:g}); end what uses the GPU (nvidia-smi shows it), or give "
        f"every server its part: two of them with --gpu-memory 0.45 each; beside what runs now, up to {left:g} fits"
    )


def _default_gib(base: BaseModel, free_memory: int, length: int | None) -> float:
    """Return the default KV cache size in GiB (see ``cpu_cache``)."""
    size = 4 * (length or 0) * _bytes_per_token(base, "float32") / GIB
    return min(max(1.0, size), free_memory / 4 / GIB)


def _bytes_per_token(base: BaseModel, dtype: str) -> int:
    """Return the bytes of one token's keys and values over all layers; 0 if config.json does not determine them."""
    c: dict[str, Any] = base.text_config
    heads = c.get("num_attention_heads") or 1
    width = c.get("head_dim") or c.get("hidden_size", 0) // heads
    number_bytes = 4 if dtype in FLOAT32 else 2  # "auto" computes a float32 checkpoint in 16 bits too
    return 2 * int(base.layers or 0) * int(c.get("num_key_value_heads") or heads) * int(width) * number_bytes

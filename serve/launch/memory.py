"""The memory that a server will take, looked at before it starts: the cache of keys and values, and the GPUs' own."""

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
"""vLLM's options with which engines may compute on other machines."""


def cpu_cache(
    base: BaseModel, dtype: str, gib: float | None, length: int | None, engines: int, free_memory: int
) -> int:
    """Return the bytes of each CPU engine's KV cache.

    Args:
        gib: as asked; None takes room for four of the longest sequences, at least 1 GiB, at most a quarter of the
            free memory.
        length: the longest sequence, in tokens.

    Raises:
        ServerError: it does not fit, or does not hold one sequence.
    """
    wanted = int((gib or _default_gib(base, free_memory // engines, length)) * GIB)
    if engines * wanted > free_memory:
        each = f" for each of {engines} engines" if engines > 1 else ""
        raise ServerError(
            f"the KV cache of {wanted / GIB:.1f} GiB{each} does not fit: {free_memory / GIB:.1f} GiB of "
            "memory are free; ask for less with --kv-cache-gib, or end other programs"
        )
    if length is not None and (needed := length * _bytes_per_token(base, dtype)) > wanted:
        raise ServerError(
            f"a KV cache of {wanted / GIB:.2f} GiB does not hold one sequence of {length} tokens, which takes "
            f"{needed / GIB:.2f} GiB; raise --kv-cache-gib or lower --max-model-len"
        )
    return wanted


def check_gpus(gpus: Sequence[Gpu] | None, share: float, engines: int, extra: Sequence[str]) -> None:
    """Refuse a server for which the GPUs are too few, or not free enough; vLLM would say so minutes later.

    vLLM wants ``share`` of a GPU's memory to be free when it starts (``request_memory``), so that a second server on
    the same GPU starts only where both were given a part.

    Args:
        gpus: those that the server sees, in its order; None where that is not known, and nothing is checked.
        share: of each GPU's memory, between 0 and 1.
        extra: the options behind the ``--``, which win.

    Raises:
        ConfigError: there are fewer GPUs than the options ask for.
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


def _occupied(gpu: Gpu, share: float, total: int, free: int) -> str:
    left = math.floor(100 * free / total) / 100
    return (
        f"GPU {gpu.index} ({gpu.name}): {free / GIB:.1f} of {total / GIB:.1f} GiB are free, and this server would take "
        f"{share * total / GIB:.1f} (--gpu-memory {share:g}); end what uses the GPU (nvidia-smi shows it), or give "
        f"every server its part: two of them with --gpu-memory 0.45 each; beside what runs now, up to {left:g} fits"
    )


def _default_gib(base: BaseModel, free_memory: int, length: int | None) -> float:
    wanted = 4 * (length or 0) * _bytes_per_token(base, "float32") / GIB
    return min(max(1.0, wanted), free_memory / 4 / GIB)


def _bytes_per_token(base: BaseModel, dtype: str) -> int:
    """Keys and values of one token over all layers; 0 where config.json does not say."""
    c: dict[str, Any] = base.text_config
    heads = c.get("num_attention_heads") or 1
    width = c.get("head_dim") or c.get("hidden_size", 0) // heads
    size = 4 if dtype in FLOAT32 else 2  # "auto" takes a float32 checkpoint in 16 bits too
    return 2 * int(base.layers or 0) * int(c.get("num_key_value_heads") or heads) * int(width) * size

"""What to serve and how, as the user gives it, and what the registered adapters need."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """What to serve and how. None: chosen from the machine, the model or the registry.

    Attributes:
        model: a model folder or a hub id.
        adapters: the registry folder; None serves only the base.
        host: the address to listen on; only loopback without a key.
        dtype: vLLM's --dtype ("auto", "float32", ...), or "exact": float32 if the machine serves adapters in it (see
            serve.launch.dtypes). Only in float32 do answers not depend on concurrency.
        max_model_len: longest prompt and answer together, in tokens.
        max_loras: adapters in one batch; further ones take turns.
        max_cpu_loras: adapter versions that may be loaded.
        max_lora_rank: the largest rank; rounded up to a value that vLLM accepts.
        kv_cache_gib: memory for the KV cache in GiB; on a GPU it is the remaining share of ``gpu_memory`` by default.
        gpu_memory: share of each GPU's memory that vLLM may use.
        shutdown_seconds: how long requests in flight may take after a stop is requested.
        data_parallel_size: engines behind one address, each with the whole model and every adapter.
        extra: further vLLM options, which take precedence over ours; some are refused (``refuse_reserved_options``).
    """

    model: str | Path
    adapters: Path | None = None
    host: str = "127.0.0.1"
    dtype: str | None = None
    max_model_len: int | None = None
    max_loras: int | None = None
    max_cpu_loras: int | None = None
    max_lora_rank: int | None = None
    kv_cache_gib: float | None = None
    gpu_memory: float = 0.9
    shutdown_seconds: int = 30
    data_parallel_size: int = 1
    extra: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RegistryNeeds:
    """What the registered adapters need from a server.

    Attributes:
        names: how many adapter names there are.
        versions: how many versions of them.
        max_rank: the largest rank, 0 without adapters.
    """

    names: int = 0
    versions: int = 0
    max_rank: int = 0

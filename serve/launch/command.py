"""The command line and environment that start vLLM: a pure function of the machine, the model and the registry."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from harness.core.errors import ConfigError
from serve.launch.compiler import EAGER, EAGER_ENV, NOTICE, decides_about_compiling
from serve.launch.dtypes import served_dtype
from serve.launch.extra_options import option_value, refuse_reserved_options
from serve.launch.machine import Machine
from serve.launch.memory import GIB, check_gpus, cpu_cache
from serve.registry.base_model import BaseModel

ADAPTERS_DIR = "ARC_BENCH_ADAPTERS"
"""Environment variable that tells the server where its registry is."""
OWNER_PID = "ARC_BENCH_OWNER_PID"
"""Environment variable that names the process without which the server must not live on."""
LOG_PATH = "ARC_BENCH_LOG"
"""Environment variable that tells the server where its output goes, so that a client on this machine can read it."""
NOT_RESTORED = "not restored: "
"""Stands in the server's log before the name of a live adapter that it could not load, and the reason."""
SERVER_MODULE = "vllm.entrypoints.launchers.api_server.entry"
"""What vLLM's own ``vllm serve`` runs for one API process. (The console script asks for the version of a distribution
``vllm``, which the CPU build is not; ``vllm.entrypoints.openai.api_server`` is deprecated.)"""
PLUGINS = ("arc_bench_cpu_fixes", "arc_bench_adapters")
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What --max-lora-rank can be; a larger one than needed costs speed."""
_WEIGHTS_ELSEWHERE = ("--load-format", "--download-dir")
"""vLLM's options with which the weights need not be in the model's folder or in the usual cache."""
_LONGEST = 32_768


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """What to serve and how; None means chosen from the machine, the model or the registry.

    Attributes:
        model: a model folder or a hub id.
        adapters: the registry folder; None serves the base alone.
        host: only loopback without a key.
        dtype: vLLM's --dtype ("auto", "float32", ...), or "exact": float32 where the machine serves adapters in it
            (see serve.launch.dtypes). Only in float32 are answers the same at any concurrency.
        max_model_len: the longest prompt and answer together, in tokens.
        max_loras: how many adapters compute in one batch; more take turns.
        max_cpu_loras: how many versions may be loaded at all.
        max_lora_rank: the largest rank to be loaded; rounded up to what vLLM takes.
        kv_cache_gib: memory for the cache of keys and values in GiB (on a GPU a share of its memory is taken instead).
        gpu_memory: the share of GPU memory that vLLM may use.
        shutdown_seconds: how long a stopping server lets requests in flight finish.
        data_parallel_size: engines behind the one address, each with the whole model and every adapter.
        extra: further vLLM options, which win over ours; some are refused (``refuse_reserved_options``).
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
    """What the registered adapters ask of a server: how many names and versions, and the largest rank (0 for none)."""

    names: int = 0
    versions: int = 0
    max_rank: int = 0


@dataclass(frozen=True, slots=True)
class Command:
    """What to run: the arguments, the environment's changes (added to the caller's own), and what to tell the user."""

    argv: tuple[str, ...]
    env: dict[str, str]
    notices: tuple[str, ...] = ()


def command_line(
    config: ServeConfig, base: BaseModel, machine: Machine, needs: RegistryNeeds, port: int, environ: Mapping[str, str]
) -> Command:
    """The command that serves ``config``.

    Args:
        base: the model of ``config.model``, opened.
        environ: the caller's environment; variables set there win over the ones chosen here.

    Raises:
        ConfigError: options that contradict each other.
        ServerError: the memory asked for the cache is not there, or weights are missing.
    """
    refuse_reserved_options(config.extra)
    if not any(option_value(config.extra, option) for option in _WEIGHTS_ELSEWHERE):
        base.check_weights(environ)
    with_adapters = config.adapters is not None
    dtype = served_dtype(config.dtype, machine, base.config, config.extra, with_adapters=with_adapters)
    config = replace(config, dtype=dtype)
    length = config.max_model_len or _default_length(base)
    options = _common_options(config, base, port)
    if base.has_other_tokenizer and option_value(config.extra, "--tokenizer-mode") is None:
        options["--tokenizer-mode"] = "hf"  # as in training; mistral-common's knows no chat template
    env = {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    if base.folder is not None:
        env["HF_HUB_OFFLINE"] = "1"
    if length is not None:
        options["--max-model-len"] = str(length)
    if config.data_parallel_size > 1:
        options |= {"--data-parallel-size": str(config.data_parallel_size), "--api-server-count": "1"}
    if config.adapters is not None:
        options |= _lora_options(config, needs)
    device_options, device_env = (
        _cpu(config, base, machine, length) if machine.device == "cpu" else _cuda(config, machine)
    )
    options |= device_options
    env = {key: value for key, value in (env | device_env).items() if key not in environ}
    given = [name for name in environ.get("VLLM_PLUGINS", "").split(",") if name]
    env["VLLM_PLUGINS"] = ",".join(dict.fromkeys([*PLUGINS, *given]))
    env[ADAPTERS_DIR] = str(config.adapters.resolve()) if config.adapters is not None else ""
    env[OWNER_PID] = ""
    env |= safe_import_path(environ)
    argv = [sys.executable, "-P", "-m", SERVER_MODULE]
    for name, value in options.items():
        argv += [name] if value is None else [name, value]
    notices = (NOTICE,) if "--enforce-eager" in options else ()
    return Command((*argv, *config.extra), env, notices)


def _common_options(config: ServeConfig, base: BaseModel, port: int) -> dict[str, str | None]:
    return {
        "--model": str(base.folder) if base.folder is not None else str(config.model),
        "--served-model-name": base.name,
        "--host": config.host,
        "--port": str(port),
        "--dtype": str(config.dtype),
        "--generation-config": "vllm",
        "--middleware": "serve.server.middleware.AdapterMiddleware",
        "--shutdown-timeout": str(config.shutdown_seconds),
        "--disable-uvicorn-access-log": None,
        "--disable-fastapi-docs": None,
    }


def safe_import_path(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that keep Python, and every Python it starts, from importing out of the current directory.

    A ``serve.py`` or ``vllm/`` in the user's folder would else take the place of the installed package. Empty parts of
    PYTHONPATH mean the current directory too.
    """
    changes = {"PYTHONSAFEPATH": "1"}
    if paths := environ.get("PYTHONPATH"):
        changes["PYTHONPATH"] = os.pathsep.join(path for path in paths.split(os.pathsep) if path not in ("", "."))
    return changes


def address(host: str, port: int) -> str:
    """The URL of a server that listens there."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def owned_by_this_process(env: dict[str, str]) -> dict[str, str]:
    """The environment of a server that ends when this process does."""
    return {**env, OWNER_PID: str(os.getpid())}


def lora_rank(needed: int) -> int:
    """The smallest --max-lora-rank that takes ``needed``.

    Raises:
        ConfigError: vLLM takes none that large.
    """
    for rank in LORA_RANKS:
        if rank >= needed:
            return rank
    raise ConfigError(f"rank {needed}: vLLM serves adapters up to rank {LORA_RANKS[-1]}")


def _lora_options(config: ServeConfig, needs: RegistryNeeds) -> dict[str, str | None]:
    # An empty registry says nothing yet: 16 is this project's and PEFT recipes' usual rank, 8 adapters a usual bench.
    rank = lora_rank(config.max_lora_rank or needs.max_rank or 16)
    slots = config.max_loras or max(4, min(16, needs.names + 1))
    held = config.max_cpu_loras or max(32, 2 * slots, needs.versions + 8)
    if held < slots:
        raise ConfigError(
            f"--max-cpu-loras {held} is below --max-loras {slots}; every adapter in a batch is also held in memory"
        )
    return {
        "--enable-lora": None,
        "--max-lora-rank": str(rank),
        "--max-loras": str(slots),
        "--max-cpu-loras": str(held),
    }


def _cpu(
    config: ServeConfig, base: BaseModel, machine: Machine, length: int | None
) -> tuple[dict[str, str | None], dict[str, str]]:
    wanted = cpu_cache(
        base, str(config.dtype), config.kv_cache_gib, length, config.data_parallel_size, machine.free_memory
    )
    options: dict[str, str | None] = {
        "--kv-cache-memory-bytes": str(wanted),
        "--max-num-batched-tokens": str(max(8192, length or 0)),
        # A request with a seed kills a CPU engine that splits its prompt; serve.cpu.patches mends that too.
        "--no-enable-chunked-prefill": None,
    }
    env = {"VLLM_CPU_OMP_THREADS_BIND": _binding(config, machine.cores)}
    if machine.compiles:
        return options, env
    # What the user says of vLLM's own compiling stands; the functions that vLLM compiles all the same cannot be.
    return options if decides_about_compiling(config.extra) else options | EAGER, env | EAGER_ENV


def _binding(config: ServeConfig, cores: tuple[int, ...]) -> str:
    """The cores of each engine's threads, "0,1|2,3" for two engines."""
    engines = config.data_parallel_size
    split_further = any(word.split("=")[0] in ("--tensor-parallel-size", "-tp") for word in config.extra)
    if len(cores) < engines or split_further:
        return "auto"
    if len(cores) > 4 * engines:
        cores = cores[:-1]  # many: one is left to the API process
    return "|".join(
        ",".join(map(str, cores[i * len(cores) // engines : (i + 1) * len(cores) // engines])) for i in range(engines)
    )


def _cuda(config: ServeConfig, machine: Machine) -> tuple[dict[str, str | None], dict[str, str]]:
    check_gpus(machine.gpus, config.gpu_memory, config.data_parallel_size, config.extra)
    options: dict[str, str | None] = {"--gpu-memory-utilization": str(config.gpu_memory)}
    if config.kv_cache_gib is not None:
        options["--kv-cache-memory-bytes"] = str(int(config.kv_cache_gib * GIB))
    return options, {}


def _default_length(base: BaseModel) -> int | None:
    longest = base.text_config.get("max_position_embeddings")
    return min(longest, _LONGEST) if isinstance(longest, int) else None

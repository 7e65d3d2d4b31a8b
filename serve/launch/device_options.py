"""The part of vLLM's command line that depends on the device: memory, threads and compiling."""

from __future__ import annotations

from serve.launch.compiler import EAGER, EAGER_ENV, decides_about_compiling
from serve.launch.machine import Machine
from serve.launch.memory import GIB, check_gpus, cpu_cache
from serve.launch.serve_config import ServeConfig
from serve.registry.base_model import BaseModel


def cpu_options(
    config: ServeConfig, base: BaseModel, machine: Machine, length: int | None
) -> tuple[dict[str, str | None], dict[str, str]]:
    """Return the options and the environment of a server on a CPU (same errors as ``command_line``)."""
    cache_bytes = cpu_cache(
        base, str(config.dtype), config.kv_cache_gib, length, config.data_parallel_size, machine.free_memory
    )
    options: dict[str, str | None] = {
        "--kv-cache-memory-bytes": str(cache_bytes),
        "--max-num-batched-tokens": str(max(8192, length or 0)),
        # A request with a seed ends a CPU engine that splits its prompt; serve.cpu.patches also fixes that.
        "--no-enable-chunked-prefill": None,
    }
    env = {"VLLM_CPU_OMP_THREADS_BIND": _thread_binding(config, machine.cores)}
    if machine.compiles:
        return options, env
    # The user's own choice about compiling the model wins; functions that vLLM compiles anyway must stay eager.
    return options if decides_about_compiling(config.extra) else options | EAGER, env | EAGER_ENV


def _thread_binding(config: ServeConfig, cores: tuple[int, ...]) -> str:
    """Return the cores of each engine's threads, such as "0,1|2,3" for two engines."""
    engines = config.data_parallel_size
    split_further = any(word.split("=")[0] in ("--tensor-parallel-size", "-tp") for word in config.extra)
    if len(cores) < engines or split_further:
        return "auto"
    if len(cores) > 4 * engines:
        cores = cores[:-1]  # with many cores, one is left to the API process
    return "|".join(
        ",".join(map(str, cores[i * len(cores) // engines : (i + 1) * len(cores) // engines])) for i in range(engines)
    )


def cuda_options(config: ServeConfig, machine: Machine) -> tuple[dict[str, str | None], dict[str, str]]:
    """Return the options and the environment of a server on GPUs (same errors as ``command_line``)."""
    check_gpus(machine.gpus, config.gpu_memory, config.data_parallel_size, config.extra)
    options: dict[str, str | None] = {"--gpu-memory-utilization": str(config.gpu_memory)}
    if config.kv_cache_gib is not None:
        options["--kv-cache-memory-bytes"] = str(int(config.kv_cache_gib * GIB))
    return options, {}

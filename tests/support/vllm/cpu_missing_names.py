"""Remove each name of vLLM that the CPU patches need, in a separate process, and print the effect as JSON."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from vllm.lora.ops import torch_ops
from vllm.lora.ops.torch_ops import lora_ops
from vllm.lora.punica_wrapper import punica_cpu
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.v1.worker.cpu_model_runner import CPUModelRunner
from vllm.v1.worker.gpu_model_runner import GPUModelRunner

from serve.cpu import patches

OPERATORS = ("bgmv_shrink", "bgmv_expand", "bgmv_expand_slice")
ATTRIBUTES = [
    *((module, name) for module in (lora_ops, torch_ops, punica_cpu) for name in OPERATORS),
    *((PunicaWrapperCPU, name) for name in ("add_lora_linear", "update_metadata", "token_lora_indices")),
    (PunicaWrapperCPU, "add_lora_logits"),
    (PunicaWrapperCPU, "sampler_indices"),
    (CPUModelRunner, "_get_prompt_logprobs_dict"),
    (CPUModelRunner, "_sample"),
    (CPUModelRunner, "_bookkeeping_sync"),
]
MODULES = (lora_ops.__name__, punica_cpu.__name__, CPUModelRunner.__module__, GPUModelRunner.__module__)


@contextmanager
def without_attribute(place: Any, name: str) -> Iterator[None]:
    """Remove a name from a module, or from a class and its base classes, within the context."""
    owners = [owner for owner in getattr(place, "__mro__", [place]) if name in vars(owner)]
    removed = [vars(owner)[name] for owner in owners]
    for owner in owners:
        delattr(owner, name)
    try:
        yield
    finally:
        for owner, value in zip(owners, removed, strict=True):
            setattr(owner, name, value)


@contextmanager
def without_module(name: str) -> Iterator[None]:
    """Make a module impossible to import, within the context."""
    parent, _, last = name.rpartition(".")
    module = sys.modules[name]
    removed = {key: value for key, value in vars(sys.modules[parent]).items() if key == last}
    sys.modules[name] = None  # type: ignore[assignment]
    vars(sys.modules[parent]).pop(last, None)
    try:
        yield
    finally:
        sys.modules[name] = module
        vars(sys.modules[parent]).update(removed)


def state() -> list[Any]:
    """Return the current values of all names."""
    return [vars(place).get(name) for place, name in ATTRIBUTES]


def put_back(before: list[Any]) -> None:
    """Restore the values of all names."""
    for (place, name), value in zip(ATTRIBUTES, before, strict=True):
        if value is None:
            if name in vars(place):
                delattr(place, name)
        else:
            setattr(place, name, value)


class Warnings(logging.Handler):
    """Collects warnings of the patches."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def seen(without: Callable[[], Any]) -> dict[str, Any]:
    """Apply the patches twice while a name is missing.

    Returns:
        The patches that were applied, the warnings, and the patches that changed something and then failed (torn).
    """
    handler, before = Warnings(), state()
    patches._log.addHandler(handler)
    patches._warned.clear()
    results: dict[str, bool] = {}
    torn = []
    with without():
        for name, patch in patches.PATCHES.items():
            now = state()
            results[name] = patches._apply(name, patch)
            if not results[name] and state() != now:
                torn.append(name)
            patches._apply(name, patch)
    patches._log.removeHandler(handler)
    put_back(before)
    return {"applied": [n for n, done in results.items() if done], "warnings": handler.lines, "torn": torn}


def main() -> None:
    """Print the effect of every missing name and module."""
    cases: dict[str, Callable[[], Any]] = {
        f"{place.__name__}.{name}": partial(without_attribute, place, name) for place, name in ATTRIBUTES
    }
    cases |= {name: partial(without_module, name) for name in MODULES}
    print(json.dumps({name: seen(case) for name, case in cases.items()}))


if __name__ == "__main__":
    main()

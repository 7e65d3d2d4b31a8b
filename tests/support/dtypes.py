"""The dtype in which tests serve: float32, but for adapters on a GPU, which vLLM does not compute in it.

``ARC_BENCH_TEST_DTYPE=bfloat16`` serves in another one: what a GPU asks of the tests, on a CPU.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from serve.launch.dtypes import EXACT, served_dtype
from serve.launch.machine import detect_machine

DTYPE = os.environ.get("ARC_BENCH_TEST_DTYPE", EXACT)
SHARE = 0.2
"""Of a GPU's memory for each server: tests have several up at once."""
SERVE: dict[str, Any] = {"dtype": DTYPE, "gpu_memory": SHARE}
"""Options of ``serving`` and fields of ServeConfig."""
WORDS = ["--dtype", DTYPE, "--gpu-memory", str(SHARE)]
"""The same for ``bench serve``."""


@cache
def plain_words(*, with_adapters: bool) -> tuple[str, ...]:
    """The same for vLLM's own command."""
    machine = detect_machine()
    share = ("--gpu-memory-utilization", str(SHARE)) if machine.device == "cuda" else ()
    return ("--dtype", served_dtype(DTYPE, machine, {}, with_adapters=with_adapters), *share)


@cache
def is_exact() -> bool:
    """Whether servers with adapters compute in float32, so that answers can be compared token by token."""
    return "float32" in plain_words(with_adapters=True)


def tolerance() -> float:
    """The largest difference of a log-probability (nats) between two ways of computing the same."""
    return 1e-3 if is_exact() else 0.5

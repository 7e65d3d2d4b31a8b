"""The dtype in which tests serve: float32, except for adapters on a GPU, where vLLM does not support it.

``ARC_BENCH_TEST_DTYPE=bfloat16`` selects another dtype, for example to run the tests on a CPU as on a GPU.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from serve.launch.dtypes import EXACT, served_dtype
from serve.launch.machine import detect_machine

DTYPE = os.environ.get("ARC_BENCH_TEST_DTYPE", EXACT)
SHARE = 0.2
"""Share of a GPU's memory for each server, because tests run several at once."""
SERVE_OPTIONS: dict[str, Any] = {"dtype": DTYPE, "gpu_memory": SHARE}
"""Options of ``serving`` and fields of ServeConfig."""
SERVE_WORDS = ["--dtype", DTYPE, "--gpu-memory", str(SHARE)]
"""The same options for ``bench serve``."""


@cache
def vllm_words(*, with_adapters: bool) -> tuple[str, ...]:
    """Return the same options for vLLM's own command."""
    machine = detect_machine()
    share = ("--gpu-memory-utilization", str(SHARE)) if machine.device == "cuda" else ()
    return ("--dtype", served_dtype(DTYPE, machine, {}, with_adapters=with_adapters), *share)


@cache
def is_exact() -> bool:
    """Return whether servers with adapters compute in float32, so that answers can be compared token by token."""
    return "float32" in vllm_words(with_adapters=True)


def tolerance() -> float:
    """Return the allowed difference, in nats, between log-probabilities computed in two ways."""
    return 1e-3 if is_exact() else 0.5

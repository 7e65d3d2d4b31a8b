"""The dtype in which a server computes, depending on the machine, the model, and whether adapters are served."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.core.errors import ConfigError
from serve.launch.extra_options import option_value
from serve.launch.machine import Machine

EXACT = "exact"
"""This project's own value: float32 if the machine can serve adapters in it, else vLLM's ``auto``."""
DTYPES = ("auto", "half", "float16", "bfloat16", "float", "float32")
"""The values of vLLM's --dtype."""
FLOAT32 = ("float32", "float")
NOT_IN_FLOAT16 = ("gemma2", "gemma3", "gemma3_text", "glm4")
"""Model types that vLLM does not compute in float16 (``vllm/config/model.py``)."""
_BFLOAT16_SINCE = (8, 0)
"""The first compute capability with bfloat16."""


def served_dtype(
    dtype: str | None, machine: Machine, model: dict[str, Any], extra: Sequence[str] = (), *, with_adapters: bool
) -> str:
    """Return the value of vLLM's --dtype.

    On an NVIDIA GPU, vLLM's LoRA kernels accept bfloat16 and float16 only (an assertion in
    ``vllm/lora/ops/triton_ops/lora_shrink_op.py``). There ``auto`` is the checkpoint's own dtype, except bfloat16 for a
    float32 checkpoint, and float16 for both on a GPU below compute capability 8.0, which has no bfloat16.

    Args:
        dtype: one of DTYPES, EXACT, or None for ``auto``.
        model: the model's config.json; empty if it is unknown.
        extra: the options after ``--``; a dtype there takes precedence.
        with_adapters: whether the server serves adapters.

    Raises:
        ConfigError: there is no such dtype, or the machine cannot compute in it.
    """
    with_adapters = with_adapters or "--enable-lora" in extra
    if dtype not in (None, EXACT, *DTYPES):
        raise ConfigError(f"--dtype {dtype}: choose from {', '.join((EXACT, *DTYPES))}")
    if dtype == EXACT:
        dtype = "auto" if machine.device == "cuda" and with_adapters else "float32"
    dtype = option_value(extra, "--dtype") or dtype or "auto"
    if machine.device == "cuda":
        _check_on_gpu(dtype, machine, str(model.get("model_type")), with_adapters)
    return dtype


def _check_on_gpu(dtype: str, machine: Machine, model_type: str, with_adapters: bool) -> None:
    """Refuse a dtype with which vLLM would fail during its start (same errors as ``served_dtype``)."""
    if with_adapters and dtype in FLOAT32:
        raise ConfigError(
            f"--dtype {dtype}: on an NVIDIA GPU vLLM computes adapters in bfloat16 or float16 only; leave --dtype out, "
            f"or give --dtype {EXACT} (float32 if the machine can, else the model's own)"
        )
    old = next((gpu for gpu in machine.gpus or () if gpu.capability and gpu.capability < _BFLOAT16_SINCE), None)
    if old is None or old.capability is None:
        return
    capability, needed = (".".join(map(str, numbers)) for numbers in (old.capability, _BFLOAT16_SINCE))
    why = f"{old.name} has compute capability {capability}, and bfloat16 needs {needed}"
    no_float16 = model_type in NOT_IN_FLOAT16
    if no_float16 and with_adapters:
        raise ConfigError(
            f"--dtype {dtype}: {why}, but vLLM does not compute models of type {model_type} in float16; "
            "their adapters need another GPU"
        )
    if dtype == "bfloat16":
        raise ConfigError(f"--dtype bfloat16: {why}; give --dtype {'float32' if no_float16 else 'float16'}")

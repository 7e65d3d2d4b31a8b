"""vLLM general plugin that works around four defects of the CPU backend, each only if a probe shows that it is present.

| defect | what happens without the workaround | upstream |
|---|---|---|
| base requests beside LoRA requests | the last adapter answers | vllm-project/vllm#48421, #49656 (open) |
| weights copied for every token | a quarter of the speed | no report found; #48421 keeps the copies |
| ``prompt_logprobs`` with LoRA on the output layer | the engine dies, or another adapter answers | no report found |
| seeds with a prompt split into chunks | the engine dies | no report found for vLLM itself (see below) |

The last defect's ``CPU Generator does not use offset`` was reported for other backends whose generators are on the
CPU: RBLN-SW/vllm-rbln#1025, qualcomm/vllm-qaic#92.

vLLM calls ``register`` in each of its processes. On other platforms it corrects nothing. In a server that ``bench
serve`` started it also ends each process with its parent (``serve.server.parent_watch``) and, on every platform, lets
requests cap their prefix-cache lookup (``serve.server.scoring.prefix_cap``).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from serve.cpu.lora_patches import patch_linear_layers, patch_operators, patch_prompt_logits
from serve.cpu.seed_patch import patch_seeds
from serve.launch.server_environment import ADAPTERS_DIR
from serve.server.parent_watch import end_with_parent
from serve.server.scoring.prefix_cap import patch_lookup

_log = logging.getLogger("vllm.arc_bench")
_warned: set[str] = set()
"""Patches that could not be applied in this process; each is warned of once."""


def register() -> None:
    """Entry point of the group ``vllm.general_plugins``; may be called several times in a process."""
    from vllm.platforms import current_platform

    if ADAPTERS_DIR in os.environ:  # set by the launcher only
        end_with_parent()
        _apply("prefix-cache lookups up to a prompt, for /arc/score", patch_lookup)
    if not current_platform.is_cpu():
        return
    applied = [name for name, patch in PATCHES.items() if _apply(name, patch)]
    _log.info("CPU workarounds in use: %s", ", ".join(applied) or "none needed")


def _apply(name: str, patch: Callable[[], bool]) -> bool:
    """Apply a patch and return whether it is in use. If vLLM lacks a name that it needs, warn once instead."""
    try:
        return patch()
    except (ImportError, AttributeError, TypeError, OSError) as error:  # OSError: no source to inspect
        if name not in _warned:
            _warned.add(name)
            _log.warning("not patched: %s; this version of vLLM differs from the one that was tested: %r", name, error)
        return False


PATCHES: dict[str, Callable[[], bool]] = {
    "LoRA layers without copies": patch_linear_layers,
    "base rows beside LoRA rows": patch_operators,
    "prompt log-probabilities where LoRA wraps the head": patch_prompt_logits,
    "seeds with chunked prefill": patch_seeds,
}
"""Applied in this order: replacing the operators would hide from the first probe that they copied weights."""

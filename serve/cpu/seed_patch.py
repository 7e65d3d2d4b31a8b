"""Patch of vLLM's seeded sampling on a CPU, for prompts that are split into chunks, with its probe."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

from serve.server.scoring.prefix_cap import PATCHED


def seeds_break_with_chunked_prefill() -> bool:
    """Probe: return whether vLLM rewinds generators by their offset, which CPU generators do not have."""
    import torch
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    if "get_offset" not in inspect.getsource(GPUModelRunner._bookkeeping_sync):
        return False
    try:
        torch.Generator("cpu").get_offset()
    except RuntimeError:
        return True
    return False


def patch_seeds() -> bool:
    """Make vLLM restore seeded generators from a saved state, not by an offset, which CPU generators do not have.

    This concerns requests whose prompt continues in the next step. Return False if vLLM does not use the offset.
    """
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner

    if not seeds_break_with_chunked_prefill() or hasattr(CPUModelRunner._sample, PATCHED):
        return False
    sample, bookkeeping = CPUModelRunner._sample, CPUModelRunner._bookkeeping_sync
    CPUModelRunner._sample = _keep_states(sample)
    CPUModelRunner._bookkeeping_sync = _hide_unfinished(bookkeeping)
    return True


def _unfinished(runner: Any) -> dict[int, Any]:
    """Return batch row and generator of the requests whose prompt continues in the next step."""
    batch = runner.input_batch
    mask = runner.discard_request_mask.np[: batch.num_reqs]
    return {row: batch.generators[row] for row in mask.nonzero()[0].tolist() if row in batch.generators}


def _keep_states(stock: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap vLLM's sampling to restore the generators of unfinished prompts afterwards."""

    @wraps(stock)
    def sample(self: Any, *args: Any, **kwargs: Any) -> Any:
        before = [(generator, generator.get_state()) for generator in _unfinished(self).values()]
        output = stock(self, *args, **kwargs)
        for generator, state in before:
            generator.set_state(state)
        return output

    setattr(sample, PATCHED, True)
    return sample


def _hide_unfinished(stock: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap vLLM's bookkeeping to hide the generators of unfinished prompts, so that it does not rewind them."""

    @wraps(stock)
    def bookkeeping(self: Any, *args: Any, **kwargs: Any) -> Any:
        hidden = _unfinished(self)
        for row in hidden:
            del self.input_batch.generators[row]
        try:
            return stock(self, *args, **kwargs)
        finally:
            self.input_batch.generators.update(hidden)

    return bookkeeping

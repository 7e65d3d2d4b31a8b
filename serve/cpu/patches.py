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
requests cap their prefix-cache lookup (``serve.server.prefix_cap``).
"""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from serve.launch.server_environment import ADAPTERS_DIR
from serve.server.parent_watch import end_with_parent
from serve.server.prefix_cap import PATCHED, patch_lookup

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


def _require(names: Mapping[Any, tuple[str, ...]]) -> None:
    """Raise AttributeError if a module or class of vLLM lacks one of these names, before anything is replaced."""
    for owner, required in names.items():
        for name in required:
            getattr(owner, name)


def base_rows_get_an_adapter() -> bool:
    """Probe: return whether the CPU operators give a row without an adapter (slot -1) the last adapter's output."""
    import torch
    from vllm.lora.ops.torch_ops import lora_ops

    output = torch.zeros(2, 1)
    slots = torch.tensor([-1, 0])
    lora_ops.bgmv_shrink(torch.ones(2, 3), torch.ones(1, 1, 1, 3), output, slots)
    return bool(output[0, 0] != 0)


def weights_are_copied_per_token() -> bool:
    """Probe: return whether the CPU operators index the stacked weights with the tokens' slots."""
    from vllm.lora.ops.torch_ops import lora_ops

    return "[lora_indices_tensor]" in inspect.getsource(lora_ops.bgmv_shrink)


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


def prompt_rows_have_no_adapter() -> bool:
    """Probe: return whether logits of a prompt use the mapping to adapters that is meant for next tokens."""
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    return "lora" not in inspect.getsource(GPUModelRunner._get_prompt_logprobs_dict)


def patch_operators() -> bool:
    """Replace vLLM's LoRA operators by ones that leave the base's rows unchanged; return False if they do already."""
    from vllm.lora.ops import torch_ops
    from vllm.lora.ops.torch_ops import lora_ops
    from vllm.lora.punica_wrapper import punica_cpu

    from serve.cpu import lora_ops as cpu_lora

    if not base_rows_get_an_adapter():
        return False
    modules = (lora_ops, torch_ops, punica_cpu)
    # The sgmv operators look these up in the module, so they use the replacements too.
    new = {
        "bgmv_shrink": cpu_lora.apply_shrink,
        "bgmv_expand": cpu_lora.apply_expand,
        "bgmv_expand_slice": cpu_lora.apply_expand_slice,
    }
    _require({module: tuple(new) for module in modules})
    for module in modules:
        for name, function in new.items():
            setattr(module, name, function)
    return True


def patch_linear_layers() -> bool:
    """Make LoRA layers use ``add_lora``, which copies no weights per token; return False if vLLM does not copy them.

    The rows of a batch are grouped by adapter once per step, not once per layer.
    """
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

    from serve.cpu import lora_ops as cpu_lora

    if not weights_are_copied_per_token():
        return False
    _require({PunicaWrapperCPU: ("add_lora_linear", "token_lora_indices")})
    stock_update = PunicaWrapperCPU.update_metadata

    @wraps(stock_update)
    def update_metadata(self: Any, *args: Any, **kwargs: Any) -> None:
        stock_update(self, *args, **kwargs)
        self._arc_bench_rows = cpu_lora.RowsBySlot.of(self.token_lora_indices)

    def add_lora_linear(
        self: Any,
        y: Any,
        x: Any,
        lora_a_stacked: Any,
        lora_b_stacked: Any,
        scale: float,
        output_slices: tuple[int, ...],
        *,
        buffer: Any = None,
        **kwargs: Any,
    ) -> None:
        flat_y, flat_x = y.view(-1, y.shape[-1]), x.reshape(-1, x.shape[-1])
        cpu_lora.add_lora(flat_y, flat_x, lora_a_stacked, lora_b_stacked, scale, output_slices, self._arc_bench_rows)

    PunicaWrapperCPU.update_metadata = update_metadata
    PunicaWrapperCPU.add_lora_linear = add_lora_linear
    return True


def patch_prompt_logits() -> bool:
    """Make LoRA on the output layer apply each prompt token's own adapter; return False if it does so already."""
    from vllm.lora.punica_wrapper import punica_cpu
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
    from vllm.v1.worker.cpu_model_runner import CPUModelRunner

    from serve.cpu import lora_ops as cpu_lora

    if not prompt_rows_have_no_adapter() or hasattr(CPUModelRunner._get_prompt_logprobs_dict, PATCHED):
        return False
    _require(
        {
            PunicaWrapperCPU: ("add_lora_logits", "sampler_indices", "token_lora_indices"),
            punica_cpu: ("bgmv_shrink", "bgmv_expand"),
        }
    )

    def add_lora_logits(
        self: Any, y: Any, x: Any, lora_a_stacked: Any, lora_b_stacked: Any, scale: float, **kwargs: Any
    ) -> None:
        flat_y, flat_x = y.view(-1, y.shape[-1]), x.reshape(-1, x.shape[-1])
        slots = cpu_lora.PromptRows.slots(len(flat_x), self.sampler_indices, self.token_lora_indices)
        buffer = flat_x.new_zeros((len(flat_x), lora_b_stacked.shape[-1])).float()
        cpu_lora.apply_shrink(flat_x, lora_a_stacked, buffer, slots, scale)
        cpu_lora.apply_expand(buffer, lora_b_stacked, flat_y, slots)

    CPUModelRunner._get_prompt_logprobs_dict = _one_prompt_at_a_time(CPUModelRunner._get_prompt_logprobs_dict)
    PunicaWrapperCPU.add_lora_logits = add_lora_logits
    return True


def _one_prompt_at_a_time(stock: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap vLLM's method to compute prompt log-probabilities for one request at a time.

    ``PromptRows`` then knows to which tokens the rows of logits belong.
    """
    from serve.cpu.lora_ops import PromptRows

    @wraps(stock)
    def prompt_logprobs(self: Any, hidden_states: Any, num_scheduled_tokens: dict[str, int]) -> dict[str, Any]:
        requested: dict[str, int] = self.num_prompt_logprobs
        results: dict[str, Any] = {}
        try:
            for name in [name for name in requested if name in num_scheduled_tokens]:
                first = int(self.query_start_loc.np[self.input_batch.req_id_to_index[name]])
                self.num_prompt_logprobs = alone = {name: requested[name]}
                with PromptRows.start_at(first):
                    results |= stock(self, hidden_states, num_scheduled_tokens)
                if not alone:  # its whole prompt is done
                    del requested[name]
        finally:
            self.num_prompt_logprobs = requested
        return results

    setattr(prompt_logprobs, PATCHED, True)
    return prompt_logprobs


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


PATCHES: dict[str, Callable[[], bool]] = {
    "LoRA layers without copies": patch_linear_layers,
    "base rows beside LoRA rows": patch_operators,
    "prompt log-probabilities where LoRA wraps the head": patch_prompt_logits,
    "seeds with chunked prefill": patch_seeds,
}
"""Applied in this order: replacing the operators would hide from the first probe that they copied weights."""

"""Patches of vLLM's LoRA on a CPU: its operators, its layers, and the logits of prompts; each with its probe."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from serve.server.scoring.prefix_cap import PATCHED


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

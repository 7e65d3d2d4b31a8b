"""Apply the CPU patches in a separate process, because they change vLLM for good, and print observations as JSON.

First vLLM is changed as if its defects were fixed, when no patch must apply. Then the patches are applied to vLLM as it
is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from vllm.lora.ops import torch_ops
from vllm.lora.ops.torch_ops import lora_ops
from vllm.lora.punica_wrapper import punica_cpu
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.v1.worker.cpu_model_runner import CPUModelRunner
from vllm.v1.worker.gpu_model_runner import GPUModelRunner

from serve.cpu import lora_ops as cpu_lora
from serve.cpu import lora_patches, patches, seed_patch

MIXED, ADAPTERS = (0, -1, 2, 2, 1, -1, 0), (0, 1, 2, 2, 1, 0, 0)
PROBES = (
    lora_patches.base_rows_get_an_adapter,
    lora_patches.weights_are_copied_per_token,
    lora_patches.prompt_rows_have_no_adapter,
    seed_patch.seeds_break_with_chunked_prefill,
)


def random(dtype: torch.dtype, seed: int, *shape: int) -> torch.Tensor:
    """Return a random tensor."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def layer(dtype: torch.dtype, slots: tuple[int, ...]) -> torch.Tensor:
    """Return the output of a LoRA layer of two slices for rows with these adapter slots, as vLLM computes it now."""
    wrapper = PunicaWrapperCPU(64, 16, "cpu")
    ids = tuple(slot + 1 for slot in slots)
    mapping = SimpleNamespace(index_mapping=ids, prompt_mapping=ids, is_prefill=True)
    wrapper.update_metadata(mapping, [1, 2, 3], 3, 100)
    x, y = random(dtype, 1, len(slots), 48), random(dtype, 2, len(slots), 40)
    a = tuple(random(dtype, 3 + i, 3, 1, 8, 48) for i in range(2))
    b = (random(dtype, 6, 3, 1, 24, 8), random(dtype, 7, 3, 1, 16, 8))
    wrapper.add_lora_linear(y, x, a, b, 1.0, (24, 16))
    return y.float()


def parts() -> list[Any]:
    """Return everything that a patch may replace."""
    names = ("bgmv_shrink", "bgmv_expand", "bgmv_expand_slice")
    values = [getattr(module, name, None) for module in (lora_ops, torch_ops, punica_cpu) for name in names]
    values += [getattr(PunicaWrapperCPU, name) for name in ("add_lora_linear", "update_metadata", "add_lora_logits")]
    return [*values, CPUModelRunner._sample, CPUModelRunner._get_prompt_logprobs_dict]


@contextmanager
def mended_vllm() -> Iterator[None]:
    """Fix vLLM's defects within the context.

    Operators skip rows without an adapter and copy nothing, logits of prompts use the adapter, and generators are not
    rewound.
    """
    names = ("_bookkeeping_sync", "_get_prompt_logprobs_dict")
    shrink, stock = lora_ops.bgmv_shrink, [getattr(GPUModelRunner, name) for name in names]
    lora_ops.bgmv_shrink = cpu_lora.apply_shrink
    GPUModelRunner._bookkeeping_sync = lambda self: None
    GPUModelRunner._get_prompt_logprobs_dict = lambda self: self.set_active_loras()
    try:
        yield
    finally:
        lora_ops.bgmv_shrink = shrink
        for name, value in zip(names, stock, strict=True):
            setattr(GPUModelRunner, name, value)


def main() -> None:
    """Print what the patches change."""
    with mended_vllm():
        before = parts()
        in_use = [name for name, patch in patches.PATCHES.items() if patch()]
        result: dict[str, Any] = {"in_use_when_mended": in_use, "replaced": parts() != before}
    result["probes"] = {probe.__name__: probe() for probe in PROBES}
    types = (torch.float32, torch.bfloat16)
    stock = {dtype: (layer(dtype, MIXED), layer(dtype, ADAPTERS)) for dtype in types}
    patches.register()
    patches.register()
    result["still_wrong"] = lora_patches.base_rows_get_an_adapter()
    rows = [i for i, slot in enumerate(MIXED) if slot >= 0]
    base = [i for i, slot in enumerate(MIXED) if slot < 0]
    for dtype, (stock_mixed, stock_adapters) in stock.items():
        mended, untouched = layer(dtype, MIXED), random(dtype, 2, len(MIXED), 40).float()
        result[str(dtype)] = {
            "adapters": (layer(dtype, ADAPTERS) - stock_adapters).abs().max().item(),
            "rows": (mended[rows] - stock_mixed[rows]).abs().max().item(),
            "base_stock": (stock_mixed[base] - untouched[base]).abs().max().item(),
            "base_mended": (mended[base] - untouched[base]).abs().max().item(),
            "size": stock_adapters.abs().max().item(),
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

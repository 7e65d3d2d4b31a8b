"""The machine's highest rate of computation, and the operations that a token of training needs."""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.training.setting import model_folder


def matrix_product(device: str, threads: int) -> dict[str, Any]:
    """Return the rate of large matrix products in the training's dtype in FLOP/s: the median of the best rounds."""
    import torch

    torch.set_num_threads(threads)
    on_gpu = device != "cpu"
    size, dtype = (8192, torch.bfloat16) if on_gpu else (1024, torch.float32)
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    rates = []
    for _ in range(12):
        if on_gpu:
            torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(10):
            a @ b
        if on_gpu:
            torch.cuda.synchronize()
        rates.append(10 * 2 * size**3 / (time.perf_counter() - start))
    # The first rounds warm up; of the others the median, since a shared machine has slow moments.
    name = torch.cuda.get_device_name() if on_gpu else "CPU"
    return {"flops": statistics.median(rates[2:]), "size": size, "dtype": str(dtype)[6:], "device": name}


def sizes(model: Path | str) -> dict[str, int]:
    """Return numbers of weights: ``layers`` in the matrices that every token passes, ``head`` in the output layer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from trainers.model.base_model import find_base

    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(str(find_base(str(model)))))
    matrices = {name: p.numel() for name, p in network.named_parameters() if p.ndim == 2 and ".layers." in name}
    return {"layers": sum(matrices.values()), "head": network.get_output_embeddings().weight.numel()}


if __name__ == "__main__":
    model, device, threads, work = sys.argv[1:]
    values = {**matrix_product(device, int(threads)), **sizes(model_folder(model, Path(work)))}
    print(json.dumps(values))

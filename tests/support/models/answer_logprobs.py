"""Log-probabilities of answers as transformers and PEFT compute them in float32, without any cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path


@cache
def reference(model: Path, adapter: Path | None) -> Callable[[Sequence[int], Sequence[int]], float]:
    """Return a function that gives the log-probability of an answer behind a prompt, both token ids."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    if adapter is not None:
        network = PeftModel.from_pretrained(network, str(adapter))
    network.eval()

    def logprob(prompt: Sequence[int], answer: Sequence[int]) -> float:
        ids = torch.tensor([[*prompt, *answer]])
        with torch.no_grad():
            logs = torch.log_softmax(network(input_ids=ids).logits[0, len(prompt) - 1 : -1].double(), -1)
        return float(logs.gather(1, ids[0, len(prompt) :, None]).sum())

    return logprob

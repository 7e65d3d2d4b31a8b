"""LoRA on the output layer, for which TRL's trainer has no loss. Imports torch and PEFT."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer

from trainers.data.micro_batches import IGNORED


def has_adapted_head(model: Any) -> bool:
    """Whether the output layer of a model has an adapter."""
    return isinstance(model, PeftModel) and isinstance(model.get_output_embeddings(), BaseTunerLayer)


@contextmanager
def hidden_head_adapter(model: Any) -> Iterator[bool]:
    """Let TRL's constructor see the output layer without its adapter, which it refuses; gives whether it has one."""
    if not has_adapted_head(model):
        yield False
        return
    base = model.get_base_model()
    base.get_output_embeddings = model.get_output_embeddings().get_base_layer
    try:
        yield True
    finally:
        del base.get_output_embeddings


def summed_answer_loss(model: Any, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The sum over all answer tokens of a pass; logits are computed from its first answer token on."""
    wanted = inputs["labels"][:, 1:]
    first = int((wanted != IGNORED).any(0).nonzero()[0])
    kept = inputs["input_ids"].shape[1] - first
    given = {name: inputs[name] for name in ("input_ids", "position_ids")}
    logits = model(**given, use_cache=False, logits_to_keep=kept).logits[:, :-1]
    return torch.nn.functional.cross_entropy(
        logits.float().flatten(0, 1), wanted[:, first:].flatten(), ignore_index=IGNORED, reduction="sum"
    )

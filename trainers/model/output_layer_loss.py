"""Compute the loss for LoRA on the output layer, which TRL's trainer does not support. Imports torch and PEFT."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer

from trainers.data.micro_batches import IGNORED


def has_adapted_head(model: Any) -> bool:
    """Return whether the output layer of a model has an adapter."""
    return isinstance(model, PeftModel) and isinstance(model.get_output_embeddings(), BaseTunerLayer)


@contextmanager
def hidden_head_adapter(model: Any) -> Iterator[bool]:
    """Hide the output layer's adapter from TRL's constructor, which refuses it; yield whether there is one."""
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
    """Return the cross-entropy (nats) summed over the answer tokens of a micro-batch.

    Logits are computed from the first answer token on only, which saves memory.
    """
    targets = inputs["labels"][:, 1:]
    first = int((targets != IGNORED).any(0).nonzero()[0])
    n_logits = inputs["input_ids"].shape[1] - first
    tokens = {name: inputs[name] for name in ("input_ids", "position_ids")}
    logits = model(**tokens, use_cache=False, logits_to_keep=n_logits).logits[:, :-1]
    return torch.nn.functional.cross_entropy(
        logits.float().flatten(0, 1), targets[:, first:].flatten(), ignore_index=IGNORED, reduction="sum"
    )

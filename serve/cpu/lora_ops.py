"""LoRA on a CPU with a few matrix products per layer, in place of a copy of the weights per token.

vLLM's CPU operators gather ``weights[index]`` for every token, which copies an adapter's matrices once a token, and
read the index -1 ("no adapter") as the last slot. Here the adapters of a batch are multiplied with all of its rows at
once and what belongs to other rows is cut out, or, where that would be much work, one adapter after another with its
own rows. Rows of the base are left alone. Shrinking is done in float32 and expanding in the layer's own type, as there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    Groups = list[tuple[int, torch.Tensor | None]]
    """Slot and the rows that use it; None for all rows."""

_WIDE = 512
"""Adapters times rank from which on each adapter is multiplied with its own rows only."""


@dataclass(frozen=True, slots=True)
class RowsBySlot:
    """Which rows of a batch use which adapter slot.

    Attributes:
        slots: (adapters,) the slots in use, ascending.
        foreign: (rows, adapters, 1), true where the row does not use that adapter.
    """

    groups: Groups
    slots: torch.Tensor
    foreign: torch.Tensor

    @staticmethod
    def of(slots: torch.Tensor) -> RowsBySlot:
        """Sort the rows of a batch by slot; -1 is the base."""
        used = slots.unique()
        used = used[used >= 0]
        return RowsBySlot(group_rows(slots), used, (slots[:, None] != used).unsqueeze(2))


def group_rows(slots: torch.Tensor) -> Groups:
    """Group the rows of a batch by adapter slot; rows of slot -1 are in no group.

    Args:
        slots: (rows,) integers.
    """
    found: list[int] = slots.unique().tolist()
    if len(found) == 1:
        return [(found[0], None)] if found[0] >= 0 else []
    return [(slot, (slots == slot).nonzero().squeeze(1)) for slot in found if slot >= 0]


class PromptRows:
    """Where the prompt starts, among the tokens of a batch, whose logits are computed beside those of the next tokens.

    For ``prompt_logprobs`` vLLM computes the logits of one request's prompt after another, but maps rows of logits to
    adapters as for the next tokens: one row per request of the batch.
    """

    _first: int | None = None

    @classmethod
    @contextmanager
    def start_at(cls, first: int) -> Iterator[None]:
        """Compute logits of a prompt whose first row in this step is ``first``."""
        cls._first = first
        try:
            yield
        finally:
            cls._first = None

    @classmethod
    def slots(cls, rows: int, sampled: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Return the slots of ``rows`` rows of logits.

        Args:
            sampled: one slot per row of logits for next tokens.
            tokens: one slot per token of the batch.
        """
        if cls._first is not None:
            return tokens[cls._first : cls._first + rows]
        return sampled.expand(rows) if len(sampled) == 1 else sampled


def add_lora(
    y: torch.Tensor,
    x: torch.Tensor,
    lora_a: tuple[torch.Tensor, ...],
    lora_b: tuple[torch.Tensor, ...],
    scale: float,
    widths: tuple[int, ...],
    rows: RowsBySlot,
) -> None:
    """Add ``scale * x A^T B^T`` to the columns of ``y``, slice after slice, with each row's own adapter.

    Args:
        y: (rows, sum of widths), changed in place.
        x: (rows, inner).
        lora_a: a slice's (slots, 1, rank, inner).
        lora_b: a slice's (slots, 1, width, rank).
    """
    if not rows.groups:
        return
    alone = rows.groups[0][1] is None
    if not alone and rows.slots.numel() * lora_a[0].shape[-2] <= _WIDE:
        _add_all_at_once(y, x.float(), lora_a, lora_b, scale, widths, rows)
        return
    for slot, chosen in rows.groups:
        inputs = (x if chosen is None else x[chosen]).float()
        start = 0
        for a, b, width in zip(lora_a, lora_b, widths, strict=True):
            shrunk = (inputs @ a[slot, 0].float().t()).mul_(scale).to(y.dtype)
            columns = y[:, start : start + width]
            if chosen is None:
                columns.addmm_(shrunk, b[slot, 0].to(y.dtype).t())
            else:
                columns.index_add_(0, chosen, shrunk @ b[slot, 0].to(y.dtype).t())
            start += width


def _add_all_at_once(
    y: torch.Tensor,
    x: torch.Tensor,
    lora_a: tuple[torch.Tensor, ...],
    lora_b: tuple[torch.Tensor, ...],
    scale: float,
    widths: tuple[int, ...],
    rows: RowsBySlot,
) -> None:
    start = 0
    for a, b, width in zip(lora_a, lora_b, widths, strict=True):
        chosen_a, chosen_b = a[rows.slots, 0], b[rows.slots, 0]
        shrunk = x @ chosen_a.flatten(0, 1).float().t()
        # Filled and not multiplied by 0, so that one adapter's overflow cannot reach another's rows.
        own = shrunk.view(len(x), *chosen_a.shape[:2]).masked_fill_(rows.foreign, 0).mul_(scale)
        y[:, start : start + width].addmm_(own.flatten(1).to(y.dtype), chosen_b.mT.flatten(0, 1).to(y.dtype))
        start += width


def apply_shrink(
    inputs: torch.Tensor, weights: torch.Tensor, output: torch.Tensor, slots: Any, scale: float = 1.0
) -> None:
    """``bgmv_shrink``: rows of ``output`` become ``scale * inputs W^T``; rows without an adapter become 0."""
    output[:, : weights.shape[-2]] = 0
    for slot, rows in group_rows(slots):
        matrix = weights[slot].view(weights.shape[-2:]).to(output.dtype).t()
        chosen = slice(None) if rows is None else rows
        output[chosen, : weights.shape[-2]] = (inputs[chosen].to(output.dtype) @ matrix) * scale


def apply_expand(
    inputs: torch.Tensor, weights: torch.Tensor, output: torch.Tensor, slots: Any, add_inputs: bool = True
) -> None:
    """``bgmv_expand``: ``inputs W^T`` is added to (or written over) the first columns of ``output``."""
    width = min(weights.shape[-2], output.shape[1])
    apply_expand_slice(inputs, weights[..., :width, :], output, slots, 0, width, add_inputs)


def apply_expand_slice(
    inputs: torch.Tensor,
    weights: torch.Tensor,
    output: torch.Tensor,
    slots: Any,
    slice_offset: int,
    slice_size: int,
    add_inputs: bool = True,
) -> None:
    """``bgmv_expand_slice``: the same from column ``slice_offset`` on; rows without an adapter are left alone.

    One slot stands for all rows, as in the operator that is replaced.
    """
    columns = output[:, slice_offset : slice_offset + slice_size]
    for slot, rows in group_rows(slots):
        matrix = weights[slot].view(weights.shape[-2:]).to(output.dtype).t()
        chosen = slice(None) if rows is None else rows
        delta = inputs[chosen].to(output.dtype) @ matrix
        columns[chosen] = columns[chosen] + delta if add_inputs else delta

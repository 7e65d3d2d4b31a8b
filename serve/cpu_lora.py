"""LoRA on a CPU with one matrix product per adapter in the batch, in place of a copy of the weights per token.

vLLM's CPU operators gather ``weights[index]`` for every token, which copies an adapter's matrices once a token, and
read the index -1 ("no adapter") as the last slot. The functions here group the tokens of a batch by slot and leave
those of the base alone. Shrinking is done in float32 and expanding in the layer's own type, as there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    Groups = list[tuple[int, torch.Tensor | None]]
    """Slot and the rows that use it; None for all rows."""


def group_rows(slots: torch.Tensor) -> Groups:
    """Group the rows of a batch by adapter slot; rows of slot -1 are in no group.

    Args:
        slots: (tokens,) integers.
    """
    found: list[int] = slots.unique().tolist()
    if len(found) == 1:
        return [(found[0], None)] if found[0] >= 0 else []
    return [(slot, (slots == slot).nonzero().squeeze(1)) for slot in found if slot >= 0]


def add_lora(
    y: torch.Tensor,
    x: torch.Tensor,
    lora_a: tuple[torch.Tensor, ...],
    lora_b: tuple[torch.Tensor, ...],
    scale: float,
    widths: tuple[int, ...],
    groups: Groups,
) -> None:
    """Add ``scale * x A^T B^T`` to the columns of ``y``, slice after slice, with each row's own adapter.

    Args:
        y: (tokens, sum of widths), changed in place.
        x: (tokens, inner).
        lora_a: a slice's (slots, 1, rank, inner).
        lora_b: a slice's (slots, 1, width, rank).
    """
    for slot, rows in groups:
        inputs = (x if rows is None else x[rows]).float()
        start = 0
        for a, b, width in zip(lora_a, lora_b, widths, strict=True):
            shrunk = (inputs @ a[slot].view(a.shape[-2:]).float().t()) * scale
            delta = shrunk.to(y.dtype) @ b[slot].view(b.shape[-2:]).to(y.dtype).t()
            columns = y[:, start : start + width]
            if rows is None:
                columns += delta
            else:
                columns.index_add_(0, rows, delta)
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
    """``bgmv_expand_slice``: the same from column ``slice_offset`` on; rows without an adapter are left alone."""
    columns = output[: slots.shape[0], slice_offset : slice_offset + slice_size]
    for slot, rows in group_rows(slots):
        matrix = weights[slot].view(weights.shape[-2:]).to(output.dtype).t()
        chosen = slice(None) if rows is None else rows
        delta = inputs[chosen].to(output.dtype) @ matrix
        columns[chosen] = columns[chosen] + delta if add_inputs else delta

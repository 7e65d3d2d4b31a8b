"""LoRA on a CPU with a few matrix products per layer instead of a copy of the weights per token.

vLLM's CPU operators gather ``weights[index]`` for every token, which copies an adapter's matrices once per token, and
read the index -1 ("no adapter") as the last slot. Here all rows of a batch are multiplied with all of its adapters at
once and the results for other adapters are masked; if that is too much work, each adapter is multiplied with its own
rows. Rows of the base are not changed. As in vLLM, shrinking computes in float32 and expanding in the layer's dtype.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    Groups = list[tuple[int, torch.Tensor | None]]
    """Slots, each with the rows that use it; None stands for all rows."""

_MAX_MASKED_WIDTH = 512
"""If adapters times rank exceeds this, each adapter is multiplied with its own rows only."""


@dataclass(frozen=True, slots=True)
class RowsBySlot:
    """Which rows of a batch use which adapter slot.

    Attributes:
        groups: see ``group_rows``.
        slots: (adapters,) the slots in use, ascending.
        foreign: (rows, adapters, 1), true if the row does not use that adapter.
    """

    groups: Groups
    slots: torch.Tensor
    foreign: torch.Tensor

    @staticmethod
    def of(slots: torch.Tensor) -> RowsBySlot:
        """Group the rows of a batch by slot.

        Args:
            slots: (rows,) integers; -1 is the base.
        """
        used = slots.unique()
        used = used[used >= 0]
        return RowsBySlot(group_rows(slots), used, (slots[:, None] != used).unsqueeze(2))


def group_rows(slots: torch.Tensor) -> Groups:
    """Return each adapter slot with its rows in a batch; rows of slot -1 (the base) are in no group.

    Args:
        slots: (rows,) integers.
    """
    used: list[int] = slots.unique().tolist()
    if len(used) == 1:
        return [(used[0], None)] if used[0] >= 0 else []
    return [(slot, (slots == slot).nonzero().squeeze(1)) for slot in used if slot >= 0]


class PromptRows:
    """Maps rows of logits to adapter slots, also for the logits of a prompt.

    For ``prompt_logprobs``, vLLM computes the logits of one request's prompt at a time, but maps their rows to adapters
    as for next tokens: one row per request. The class therefore holds the first row of the prompt that is being
    computed.
    """

    _first: int | None = None

    @classmethod
    @contextmanager
    def start_at(cls, first: int) -> Iterator[None]:
        """While the block runs, logits are those of the prompt whose first row in this step is ``first``."""
        cls._first = first
        try:
            yield
        finally:
            cls._first = None

    @classmethod
    def slots(cls, rows: int, sampled: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Return the slots of ``rows`` rows of logits.

        Args:
            sampled: (requests,) the slot of each row of logits for next tokens.
            tokens: (tokens,) the slot of each token of the batch.
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
    """Add ``scale * x A^T B^T`` to ``y``, slice by slice, with the adapter of each row.

    Args:
        y: (rows, sum of widths), changed in place.
        x: (rows, inner).
        lora_a: for each slice (slots, 1, rank, inner).
        lora_b: for each slice (slots, 1, width, rank).
        widths: columns of each slice.
        rows: which rows use which slot.
    """
    if not rows.groups:
        return
    alone = rows.groups[0][1] is None
    if not alone and rows.slots.numel() * lora_a[0].shape[-2] <= _MAX_MASKED_WIDTH:
        _add_masked(y, x.float(), lora_a, lora_b, scale, widths, rows)
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


def _add_masked(
    y: torch.Tensor,
    x: torch.Tensor,
    lora_a: tuple[torch.Tensor, ...],
    lora_b: tuple[torch.Tensor, ...],
    scale: float,
    widths: tuple[int, ...],
    rows: RowsBySlot,
) -> None:
    """Implement ``add_lora`` by multiplying all rows with all adapters and masking the results of other adapters."""
    start = 0
    for a, b, width in zip(lora_a, lora_b, widths, strict=True):
        chosen_a, chosen_b = a[rows.slots, 0], b[rows.slots, 0]
        shrunk = x @ chosen_a.flatten(0, 1).float().t()
        # Masked, not multiplied by 0: an infinity times 0 would put NaN into rows of other adapters.
        masked = shrunk.view(len(x), *chosen_a.shape[:2]).masked_fill_(rows.foreign, 0).mul_(scale)
        y[:, start : start + width].addmm_(masked.flatten(1).to(y.dtype), chosen_b.mT.flatten(0, 1).to(y.dtype))
        start += width


def apply_shrink(
    inputs: torch.Tensor, weights: torch.Tensor, output: torch.Tensor, slots: Any, scale: float = 1.0
) -> None:
    """Replace ``bgmv_shrink``: set rows of ``output`` to ``scale * inputs W^T``; rows without an adapter become 0."""
    output[:, : weights.shape[-2]] = 0
    for slot, rows in group_rows(slots):
        matrix = weights[slot].view(weights.shape[-2:]).to(output.dtype).t()
        chosen = slice(None) if rows is None else rows
        output[chosen, : weights.shape[-2]] = (inputs[chosen].to(output.dtype) @ matrix) * scale


def apply_expand(
    inputs: torch.Tensor, weights: torch.Tensor, output: torch.Tensor, slots: Any, add_inputs: bool = True
) -> None:
    """Replace ``bgmv_expand``: add ``inputs W^T`` to the first columns of ``output``, or overwrite them."""
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
    """Replace ``bgmv_expand_slice``: as ``apply_expand``, from column ``slice_offset`` on.

    Rows without an adapter are not changed. A single slot applies to all rows, as in the replaced operator.
    """
    columns = output[:, slice_offset : slice_offset + slice_size]
    for slot, rows in group_rows(slots):
        matrix = weights[slot].view(weights.shape[-2:]).to(output.dtype).t()
        chosen = slice(None) if rows is None else rows
        delta = inputs[chosen].to(output.dtype) @ matrix
        columns[chosen] = columns[chosen] + delta if add_inputs else delta

"""LoRA on a CPU with a few matrix products per layer instead of a copy of the weights per token.

vLLM's CPU operators gather ``weights[index]`` for every token, which copies an adapter's matrices once per token, and
read the index -1 ("no adapter") as the last slot. Here an adapter with many rows in a batch, such as a prompt, is
multiplied with its own rows; adapters with few, such as next tokens, are multiplied with theirs all at once, in a
batched product. Rows of the base are not changed. As in vLLM, shrinking computes in float32 and expanding in the
layer's dtype.
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

_FEW_ROWS = 16
"""Adapters with at most so many rows share a batched product; more rows keep a core busy by themselves."""


@dataclass(frozen=True, slots=True)
class FewRows:
    """The rows of several adapters, padded to equal numbers for a batched matrix product.

    Attributes:
        slots: (adapters,) of the product, ascending: a slice, which copies no weights, unless most of it would be idle.
        padded: (adapters, most) the rows of each adapter, then row 0 as padding; an idle slot has only padding.
        kept: (rows,) where the rows are in ``padded``, flattened; None if nothing is padding.
        rows: (rows,) the rows.
    """

    slots: slice | torch.Tensor
    padded: torch.Tensor
    kept: torch.Tensor | None
    rows: torch.Tensor

    @staticmethod
    def of(groups: list[tuple[int, torch.Tensor]]) -> FewRows:
        """Pad the rows of several slots, which ascend."""
        import torch

        first, last = groups[0][0], groups[-1][0]
        is_dense = last - first < 2 * len(groups)
        slots = slice(first, last + 1) if is_dense else torch.tensor([slot for slot, _ in groups])
        most, rows = max(len(chosen) for _, chosen in groups), torch.cat([chosen for _, chosen in groups])
        places = [
            (slot - first if is_dense else i) * most + j
            for i, (slot, chosen) in enumerate(groups)
            for j in range(len(chosen))
        ]
        kept = torch.tensor(places)
        padded = rows.new_zeros((last - first + 1 if is_dense else len(groups)) * most)
        padded[kept] = rows
        return FewRows(slots, padded.view(-1, most), None if len(kept) == len(padded) else kept, rows)

    def matrices(self, stacked: torch.Tensor) -> torch.Tensor:
        """Return (adapters, …), the matrices of these slots of (slots, 1, …)."""
        return stacked[self.slots, 0]


@dataclass(frozen=True, slots=True)
class RowsBySlot:
    """Which rows of a batch use which adapter slot.

    Attributes:
        many: slots with rows that are multiplied by themselves; a slot may occur several times.
        few: other rows of other slots; None if there are not two slots.
    """

    many: list[tuple[int, torch.Tensor | slice]]
    few: FewRows | None

    @staticmethod
    def of(slots: torch.Tensor) -> RowsBySlot:
        """Group the rows of a batch by slot, after taking out long runs of one slot, which are prompts.

        Args:
            slots: (rows,) integers; -1 is the base.
        """
        many: list[tuple[int, torch.Tensor | slice]] = []
        rest, start = slots >= 0, 0
        for slot, count in zip(*(part.tolist() for part in slots.unique_consecutive(return_counts=True)), strict=True):
            if slot >= 0 and count > _FEW_ROWS:
                many.append((slot, slice(start, start + count)))
                rest[start : start + count] = False
            start += count
        rows = rest.nonzero().squeeze(1)
        used, counts = slots[rows].unique(return_counts=True)
        chosen = rows[slots[rows].argsort(stable=True)].split(counts.tolist())
        groups = list(zip(used.tolist(), chosen, strict=True))
        few = [group for group in groups if len(group[1]) <= _FEW_ROWS]
        if len(few) < 2:
            return RowsBySlot([*many, *groups], None)
        return RowsBySlot([*many, *(group for group in groups if len(group[1]) > _FEW_ROWS)], FewRows.of(few))


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
    for slot, chosen in rows.many:
        inputs, start = x[chosen].float(), 0
        for a, b, width in zip(lora_a, lora_b, widths, strict=True):
            shrunk = _shrink(inputs, a[slot, 0], scale).to(y.dtype)
            columns, expand = y[:, start : start + width], b[slot, 0].to(y.dtype).t()
            if isinstance(chosen, slice):
                columns[chosen].addmm_(shrunk, expand)
            else:
                columns.index_add_(0, chosen, shrunk @ expand)
            start += width
    if rows.few is not None:
        _add_few(y, x[rows.few.padded].float(), lora_a, lora_b, scale, rows.few)


def _add_few(
    y: torch.Tensor,
    x: torch.Tensor,
    lora_a: tuple[torch.Tensor, ...],
    lora_b: tuple[torch.Tensor, ...],
    scale: float,
    few: FewRows,
) -> None:
    """Implement ``add_lora`` for padded rows: ``x`` is (adapters, most, inner). Results of the padding are dropped."""
    import torch

    deltas = [
        _shrink(x, few.matrices(a), scale).to(y.dtype) @ few.matrices(b).to(y.dtype).mT
        for a, b in zip(lora_a, lora_b, strict=True)
    ]
    delta = (torch.cat(deltas, 2) if len(deltas) > 1 else deltas[0]).flatten(0, 1)
    if few.kept is not None:
        delta = delta[few.kept]
    y[:, : delta.shape[1]].index_add_(0, few.rows, delta)  # whole rows: four times as fast as a slice's columns


def _shrink(x: torch.Tensor, a: torch.Tensor, scale: float) -> torch.Tensor:
    """Return ``scale * x A^T`` in float32; vLLM's scale is 1, as it multiplies B by an adapter's when it loads it."""
    shrunk = x @ a.float().mT
    return shrunk if scale == 1 else shrunk.mul_(scale)


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

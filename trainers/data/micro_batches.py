"""Batches: a step's samples in forward passes of like length, and their padding.

The samples of an optimizer step are sorted by length and cut into passes that waste little on padding. The step's
gradient is the same in any cut, since its loss is normalised over all answer tokens of the step; only dropout, which is
drawn pass by pass, and rounding differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.core.errors import ConfigError
from trainers.data.mixture import DrawnSample, count_by_source

if TYPE_CHECKING:
    import torch

Batch = dict[str, "torch.Tensor"]
"""``input_ids``, ``position_ids`` and ``labels``, each (samples, longest)."""
IGNORED = -100
"""The label of tokens outside the loss, as PyTorch's cross-entropy has it."""


@dataclass(frozen=True)
class MicroBatchLimits:
    """What one forward pass may hold."""

    tokens: int
    """Places for tokens, padding included; a longer sample is alone in its pass."""
    samples: int | None = None
    padding: float = 0.05
    """The largest share of padding in a pass."""


def cut_micro_batches(lengths: Sequence[int], limits: MicroBatchLimits) -> list[list[int]]:
    """The positions of ``lengths`` in passes, the longest first: a lack of memory shows at once."""
    passes: list[list[int]] = []
    total = 0
    for k in sorted(range(len(lengths)), key=lambda k: -lengths[k]):
        if passes:
            longest, size = lengths[passes[-1][0]], len(passes[-1]) + 1
            fits = longest * size <= limits.tokens and (limits.samples is None or size <= limits.samples)
            if fits and total + lengths[k] >= (1 - limits.padding) * longest * size:
                passes[-1].append(k)
                total += lengths[k]
                continue
        passes.append([k])
        total = lengths[k]
    return passes


def samples_per_process(batch_size: int, processes: int) -> int:
    """How many of a step's samples each process takes, so that a step has the same samples on any number of them.

    Raises:
        ConfigError: the batch cannot be spread evenly.
    """
    each, left = divmod(batch_size, processes)
    if left:
        raise ConfigError(f"recipe: batch_size {batch_size} cannot be spread over {processes} processes")
    return each


@dataclass(frozen=True)
class Collator:
    """A process's samples of one step as padded passes; the loss covers the answer and its end-of-turn token.

    Padding is known by its place, not by its id, so that a tokenizer whose padding token is also the end of a turn
    does not hide that token from the loss.
    """

    pad_id: int
    n_sources: int
    limits: MicroBatchLimits

    def __call__(self, rows: Sequence[Mapping[str, DrawnSample]]) -> dict[str, object]:
        """``passes``: batches for the model; ``labels`` and ``input_ids``: all of them, flat, to be counted."""
        import torch

        draws = [row["draw"] for row in rows]
        cut = cut_micro_batches([len(d.sample.ids) for d in draws], self.limits)
        passes = [
            pad_samples([draws[k].sample.ids for k in ks], [draws[k].sample.prompt_length for k in ks], self.pad_id)
            for ks in cut
        ]
        flat = {name: torch.cat([p[name].flatten() for p in passes]) for name in ("input_ids", "labels")}
        return {
            **flat,
            "passes": passes,
            "counts": [list(vars(c).values()) for c in count_by_source(draws, self.n_sources)],
        }


def split_micro_batches(passes: Sequence[Batch], number: int) -> list[Batch]:
    """The same samples in ``number`` passes, which must lie between that of the passes and that of the samples."""
    parts = list(passes)
    while len(parts) < number:
        k = max(range(len(parts)), key=lambda k: len(parts[k]["labels"]))
        half = len(parts[k]["labels"]) // 2
        parts[k : k + 1] = [{n: v[:half] for n, v in parts[k].items()}, {n: v[half:] for n, v in parts[k].items()}]
    return parts


def pad_samples(ids: Sequence[Sequence[int]], prompt_lengths: Sequence[int], pad_id: int) -> Batch:
    """Samples as a batch, padded on the right.

    There is no attention mask: in a causal model no token sees the padding after it, and the padding is not in the
    loss, while a mask would keep PyTorch from its fastest attention kernels.
    """
    import torch

    longest = max(map(len, ids))
    shape = (len(ids), longest)
    tokens = torch.full(shape, pad_id, dtype=torch.long)
    labels = torch.full(shape, IGNORED, dtype=torch.long)
    for k, (row, start) in enumerate(zip(ids, prompt_lengths, strict=True)):
        end = len(row)
        tokens[k, :end] = torch.tensor(row)
        labels[k, start:end] = tokens[k, start:end]
    return {"input_ids": tokens, "position_ids": torch.arange(longest).repeat(len(ids), 1), "labels": labels}

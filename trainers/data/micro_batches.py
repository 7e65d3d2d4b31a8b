"""Cut the samples of a training step into padded micro-batches of similar length.

Samples are sorted by length, so that little padding is needed. The gradient of the step is the same for any cut,
because the loss is averaged over all answer tokens of the step; only rounding and dropout, which is drawn per
micro-batch, differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.core.errors import ConfigError
from harness.prompts.training_sample import TrainingSample
from trainers.data.mixture import DrawnSample, count_by_source

if TYPE_CHECKING:
    import torch

Batch = dict[str, "torch.Tensor"]
"""``input_ids``, ``position_ids`` and ``labels``, each of shape (samples, longest sample)."""
IGNORED = -100
"""Label of tokens outside the loss (``ignore_index`` of PyTorch's cross-entropy)."""


@dataclass(frozen=True)
class MicroBatchLimits:
    """Upper bounds of one micro-batch."""

    tokens: int
    """Tokens, padding included; a longer sample gets a micro-batch of its own."""
    samples: int | None = None
    """Samples; None for no limit."""
    padding: float = 0.05
    """Share of padding."""


def cut_micro_batches(lengths: Sequence[int], limits: MicroBatchLimits) -> list[list[int]]:
    """Group the indices of ``lengths`` into micro-batches.

    The longest samples come first, so that a lack of memory shows at once.
    """
    micro_batches: list[list[int]] = []
    total = 0
    for k in sorted(range(len(lengths)), key=lambda k: -lengths[k]):
        if micro_batches:
            longest, size = lengths[micro_batches[-1][0]], len(micro_batches[-1]) + 1
            fits = longest * size <= limits.tokens and (limits.samples is None or size <= limits.samples)
            if fits and total + lengths[k] >= (1 - limits.padding) * longest * size:
                micro_batches[-1].append(k)
                total += lengths[k]
                continue
        micro_batches.append([k])
        total = lengths[k]
    return micro_batches


def samples_per_process(batch_size: int, processes: int) -> int:
    """Return how many samples of a step each process takes.

    Raises:
        ConfigError: ``batch_size`` is not divisible by the number of processes.
    """
    each, left = divmod(batch_size, processes)
    if left:
        raise ConfigError(f"recipe: batch_size {batch_size} cannot be spread over {processes} processes")
    return each


@dataclass(frozen=True)
class Collator:
    """Collate one process's samples of a training step into micro-batches.

    The loss covers the answer, its end-of-turn token, and the ``learned`` ranges of the prompt. Padding is masked by
    position, not by token id, because some tokenizers pad with the end-of-turn token.
    """

    pad_id: int
    n_sources: int
    limits: MicroBatchLimits

    def __call__(self, rows: Sequence[Mapping[str, DrawnSample]]) -> dict[str, object]:
        """Return the micro-batches of some samples, and what is counted over all of them.

        Returns:
            ``micro_batches``; ``input_ids`` and ``labels`` of all of them, flat (transformers counts the answer tokens
            of a step in ``labels``); and ``counts``, the values of ``SampleCounts`` for each dataset.
        """
        import torch

        draws = [row["draw"] for row in rows]
        cut = cut_micro_batches([len(d.sample.ids) for d in draws], self.limits)
        micro_batches = [pad_samples([draws[k].sample for k in ks], self.pad_id) for ks in cut]
        flat = {name: torch.cat([p[name].flatten() for p in micro_batches]) for name in ("input_ids", "labels")}
        return {
            **flat,
            "micro_batches": micro_batches,
            "counts": [list(vars(c).values()) for c in count_by_source(draws, self.n_sources)],
        }


def split_micro_batches(micro_batches: Sequence[Batch], number: int) -> list[Batch]:
    """Split the largest micro-batches in halves until there are ``number``, which is at most the number of samples."""
    parts = list(micro_batches)
    while len(parts) < number:
        k = max(range(len(parts)), key=lambda k: len(parts[k]["labels"]))
        half = len(parts[k]["labels"]) // 2
        parts[k : k + 1] = [{n: v[:half] for n, v in parts[k].items()}, {n: v[half:] for n, v in parts[k].items()}]
    return parts


def pad_samples(samples: Sequence[TrainingSample], pad_id: int) -> Batch:
    """Return samples as one batch, padded on the right.

    There is no attention mask: causal attention never looks at the padding after a sample, and the padding is not in
    the loss. A mask would exclude PyTorch's fastest attention kernels.
    """
    import torch

    longest = max(len(sample.ids) for sample in samples)
    shape = (len(samples), longest)
    tokens = torch.full(shape, pad_id, dtype=torch.long)
    labels = torch.full(shape, IGNORED, dtype=torch.long)
    for k, sample in enumerate(samples):
        end = len(sample.ids)
        tokens[k, :end] = torch.tensor(sample.ids)
        for first, last in (*sample.learned, (sample.prompt_length, end)):
            labels[k, first:last] = tokens[k, first:last]
    return {"input_ids": tokens, "position_ids": torch.arange(longest).repeat(len(samples), 1), "labels": labels}

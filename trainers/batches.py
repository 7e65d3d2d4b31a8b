"""Batches: rows of optimizer steps, sorted by length inside each step, and their padding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.errors import ConfigError
from trainers.mixture import Draw, Mixture, count
from trainers.recipe import Recipe

if TYPE_CHECKING:
    import torch

TOKENS_A_PASS = 32_768
"""How many tokens one forward pass holds at most where the recipe names no micro-batch size."""
IGNORED = -100
"""The label of tokens outside the loss, as PyTorch's cross-entropy has it."""


@dataclass(frozen=True)
class Shape:
    """How a step's ``batch_size`` samples are spread: micro_batch × accumulation × processes."""

    micro_batch: int
    accumulation: int
    processes: int


def batch_shape(recipe: Recipe, processes: int) -> Shape:
    """The spread of a step over ``processes``, the same samples a step whatever their number.

    Raises:
        ConfigError: the batch size cannot be spread evenly.
    """
    each, left = divmod(recipe.batch_size, processes)
    if left:
        raise ConfigError(f"recipe: batch_size {recipe.batch_size} cannot be spread over {processes} processes")
    micro = recipe.micro_batch_size
    if micro is None:
        fits = max(1, TOKENS_A_PASS // recipe.max_seq_len)
        micro = max(m for m in range(1, each + 1) if each % m == 0 and m <= max(1, fits))
    if each % micro:
        raise ConfigError(f"recipe: micro_batch_size {micro} does not divide the {each} samples a step of each process")
    return Shape(micro, each // micro, processes)


class StepRows:
    """Row ``r`` of training: the rows of one optimizer step hold its samples, longest first.

    Step ``s`` has the samples ``s*batch_size … (s+1)*batch_size - 1`` in any case; sorting only decides which of them
    share a forward pass, so that little is padded. The longest come first: a lack of memory shows at once.
    """

    def __init__(self, mixture: Mixture, batch_size: int) -> None:
        self.mixture, self.batch_size = mixture, batch_size
        self._kept: dict[int, list[Draw]] = {}

    def row(self, index: int) -> Draw:
        """Row ``index`` of the run."""
        step, place = divmod(index, self.batch_size)
        if step not in self._kept:
            # The micro-batches of a step are asked for one after another: the last two steps are enough.
            self._kept = {k: v for k, v in self._kept.items() if k == step - 1}
            self._kept[step] = self.step(step)
        return self._kept[step][place]

    def step(self, step: int) -> list[Draw]:
        """The samples of a step in the order of their rows."""
        first = step * self.batch_size
        draws = [self.mixture.draw(i) for i in range(first, first + self.batch_size)]
        return sorted(draws, key=lambda d: -len(d.sample.ids))


@dataclass(frozen=True)
class Collator:
    """Pads samples to a batch; the loss covers the answer and its end-of-turn token, never padding or prompt.

    Padding is known by its place, not by its id, so that a tokenizer whose padding token is also the end of a turn
    does not hide that token from the loss.
    """

    pad_id: int
    n_sources: int

    def __call__(self, rows: Sequence[Mapping[str, Draw]]) -> dict[str, object]:
        draws = [row["draw"] for row in rows]
        batch = dict(pad_samples([d.sample.ids for d in draws], [d.sample.prompt_length for d in draws], self.pad_id))
        return {**batch, "counts": [list(vars(c).values()) for c in count(draws, self.n_sources)]}


def pad_samples(ids: Sequence[Sequence[int]], prompt_lengths: Sequence[int], pad_id: int) -> dict[str, torch.Tensor]:
    """``input_ids``, ``attention_mask`` and ``labels``, each (samples, longest), padded on the right."""
    import torch

    longest = max(map(len, ids))
    shape = (len(ids), longest)
    tokens = torch.full(shape, pad_id, dtype=torch.long)
    mask = torch.zeros(shape, dtype=torch.long)
    labels = torch.full(shape, IGNORED, dtype=torch.long)
    for k, (row, start) in enumerate(zip(ids, prompt_lengths, strict=True)):
        end = len(row)
        tokens[k, :end] = torch.tensor(row)
        mask[k, :end] = 1
        labels[k, start:end] = tokens[k, start:end]
    return {"input_ids": tokens, "attention_mask": mask, "labels": labels}

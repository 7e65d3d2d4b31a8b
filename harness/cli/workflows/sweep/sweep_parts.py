"""Parts of a sweep: explicit mixtures, how to serve, how to bench, and one adapter to train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from harness.cli.workflows.sweep.sweep_cells import Mixture
from harness.core.random_stream import MAX_SEED
from trainers.recipe.parts import DatasetRecipe, FilledDatasetList, Spec, StrictModel
from trainers.recipe.schema import Recipe


class MixtureRow(StrictModel):
    """One row of the table: a mixture, and the name of the adapter that is trained on it."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,40}$")]
    """The adapter's name; with several seeds ``-s<seed>`` is appended."""
    datasets: FilledDatasetList
    """The mixture: each dataset with its weight."""


class ServeOptions(StrictModel):
    """Options of ``bench serve``; those that are None are chosen from the machine and the adapters."""

    dtype: str | None = None
    """``exact`` means float32, on machines that serve adapters in it."""
    max_model_len: Annotated[int, Field(gt=0)] | None = None
    """Longest prompt with its answer, in tokens."""
    max_loras: Annotated[int, Field(gt=0)] | None = None
    """Adapters in one batch."""
    kv_cache_gib: Annotated[float, Field(gt=0)] | None = None
    """Memory for the KV cache, in GiB."""
    gpu_memory: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Share of the GPU's memory that the server uses."""
    extra: list[str] = Field(default_factory=list)
    """Options that are passed to vLLM."""


class Evaluation(StrictModel):
    """How every adapter is benched: options of ``bench run``, the same for all adapters."""

    dataset: Spec
    """Dataset spec."""
    n: Annotated[int, Field(gt=0)] = 32
    """Predictions per test output."""
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 0
    """Seed of the augmentations and of the sampling."""
    limit: Annotated[int, Field(gt=0)] | None = None
    """Only the first so many tasks; None for all."""
    max_tokens: Annotated[int, Field(gt=0)] | None = None
    """Limit of an answer; None for enough for a 30x30 grid."""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """Sampling temperature; 0 is greedy."""
    prompt: str | None = None
    """None: the prompt of the datasets, if all that show the test input have the same."""
    base: bool = False
    """Whether to bench the base model too."""


@dataclass(frozen=True)
class AdapterTraining:
    """One adapter to train, with its recipe as plain values (``data``) and validated (``recipe``)."""

    name: str
    data: dict[str, Any]
    recipe: Recipe


def mixture_of_weight(original: Sequence[DatasetRecipe], added: Sequence[DatasetRecipe], weight: float) -> Mixture:
    """Return the mixture in which the original datasets have this share."""
    datasets = (*_scaled(original, weight), *_scaled(added, 1 - weight))
    return Mixture(f"w{100 * weight:g}".replace(".", "_"), f"{100 * weight:g} %", datasets)


def _scaled(datasets: Sequence[DatasetRecipe], share: float) -> list[DatasetRecipe]:
    """Return the datasets with their weights scaled to add up to ``share``; a missing weight counts as 1."""
    if share == 0:
        return []
    total = sum(part.weight or 1.0 for part in datasets)
    return [part.model_copy(update={"weight": share * (part.weight or 1.0) / total}) for part in datasets]

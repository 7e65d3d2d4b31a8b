"""Parts of a sweep: explicit mixtures, how to serve, how to bench, and one adapter to train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from harness.core.random_stream import MAX_SEED
from trainers.recipe.parts import DatasetRecipe, FilledDatasetList, Spec, StrictModel
from trainers.recipe.schema import Recipe


class MixtureRow(StrictModel):
    """One row of the table: a mixture, and the name of the adapter that is trained on it."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,40}$")]
    """The adapter's name; with several seeds ``-s<seed>`` is appended."""
    datasets: FilledDatasetList


class ServeOptions(StrictModel):
    """Options of ``bench serve``; those that are None are chosen from the machine and the adapters."""

    dtype: str | None = None
    """``exact`` means float32, on machines that serve adapters in it."""
    max_model_len: Annotated[int, Field(gt=0)] | None = None
    max_loras: Annotated[int, Field(gt=0)] | None = None
    kv_cache_gib: Annotated[float, Field(gt=0)] | None = None
    gpu_memory: Annotated[float, Field(gt=0, le=1)] = 0.9
    extra: list[str] = Field(default_factory=list)
    """Options that are passed to vLLM."""


class Evaluation(StrictModel):
    """How every adapter is benched: options of ``bench run``, the same for all adapters."""

    dataset: Spec
    n: Annotated[int, Field(gt=0)] = 32
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 0
    limit: Annotated[int, Field(gt=0)] | None = None
    max_tokens: Annotated[int, Field(gt=0)] | None = None
    temperature: Annotated[float, Field(ge=0)] = 0.0
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


def weight_name(weight: float) -> str:
    """Return the name of the mixture in which the original datasets have this share."""
    return f"w{100 * weight:g}".replace(".", "_")


def scaled_weights(datasets: Sequence[DatasetRecipe], share: float) -> list[DatasetRecipe]:
    """Return the datasets with their weights scaled to add up to ``share``; a missing weight counts as 1."""
    if share == 0:
        return []
    total = sum(part.weight or 1.0 for part in datasets)
    return [part.model_copy(update={"weight": share * (part.weight or 1.0) / total}) for part in datasets]

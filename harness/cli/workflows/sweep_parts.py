"""Parts of a sweep file: explicit mixtures, how to serve, and how to bench."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from harness.core.random_stream import MAX_SEED
from trainers.recipe.parts import DatasetRecipe, Spec, StrictModel, normalize_datasets


class MixtureRow(StrictModel):
    """One row of the table: a mixture, and the name of the adapter that is trained on it."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,40}$")]
    """The adapter's name; with several seeds ``-s<seed>`` is appended."""
    datasets: Annotated[list[DatasetRecipe], Field(min_length=1), BeforeValidator(normalize_datasets)]


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

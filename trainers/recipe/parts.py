"""Define the parts of a recipe: datasets, problem changes, validation and LoRA options."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from trainers.data.task_augmentation import KINDS, Kind

Share = Annotated[float, Field(ge=0, le=1)]


def expand_home(value: object) -> object:
    """Replace a leading ``~`` of a path by the home folder; return any other value unchanged.

    Raises:
        ValueError: the user named after ``~`` has no home folder.
    """
    if not isinstance(value, str) or not value.startswith("~"):
        return value
    path = os.path.expanduser(value)
    if path.startswith("~"):
        raise ValueError(f"{value!r}: no home folder is known for {value.split('/')[0]!r}")
    return path


def expand_spec(value: object) -> object:
    """Expand ``~`` in a dataset spec: in its path and in the path of ``#ids=``.

    Raises:
        ValueError: see ``expand_home``.
    """
    if not isinstance(value, str):
        return value
    return re.sub(r"(^(?:barc-\d+-\d+-)?|#ids=)(~[^#]*)", lambda match: f"{match[1]}{expand_home(match[2])}", value)


Spec = Annotated[str, BeforeValidator(expand_spec, json_schema_input_type=str)]
"""Dataset spec, with ``~`` expanded."""
Location = Annotated[str, BeforeValidator(expand_home, json_schema_input_type=str)]
"""Path with ``~`` expanded, or a name that is not a path."""
Folder = Annotated[Path, BeforeValidator(expand_home, json_schema_input_type=str)]
"""Path with ``~`` expanded."""


def normalize_datasets(value: object) -> object:
    """Turn one dataset or a list of them into a list of mappings; a bare spec becomes ``{"spec": spec}``."""
    items = value if isinstance(value, list) else [value]
    return [{"spec": item} if isinstance(item, str) else item for item in items]


class StrictModel(BaseModel):
    """Base class of a recipe and its parts: frozen, refuses unknown keys and infinite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class DatasetRecipe(StrictModel):
    """One dataset of the mixture."""

    spec: Spec
    """Dataset spec, such as ``arc1/training`` or ``toy/cross#n=2000``."""
    prompt: str | None = None
    """Prompt of its samples; None for the recipe's ``prompt``."""
    weight: Annotated[float, Field(gt=0)] | None = None
    """Weight relative to the other datasets. If no dataset has one, each weighs its number of task ids."""
    resplit: bool | None = None
    """None for the recipe's ``resplit``."""
    change_probability: Share | None = None
    """None for the recipe's ``change_probability``."""


_Entry = str | DatasetRecipe
_Entries = Annotated[list[_Entry], Field(min_length=1)]
DatasetList = Annotated[
    list[DatasetRecipe], BeforeValidator(normalize_datasets, json_schema_input_type=_Entry | list[_Entry])
]
"""One dataset or a list of them, each a spec or a mapping."""
FilledDatasetList = Annotated[
    list[DatasetRecipe],
    Field(min_length=1),
    BeforeValidator(normalize_datasets, json_schema_input_type=_Entry | _Entries),
]
"""The same with at least one dataset."""


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


Tracker = Literal["tensorboard", "wandb", "trackio", "mlflow"]
TrackerList = Annotated[list[Tracker], BeforeValidator(_as_list, json_schema_input_type=Tracker | list[Tracker])]
"""Experiment trackers; one may stand alone."""


class ChangeWeights(StrictModel):
    """Relative probability of each kind of problem change (see ``trainers.data.task_augmentation``)."""

    geometric: Annotated[float, Field(ge=0)] = 1
    """Apply one of the symmetries to all inputs or all outputs."""
    padding: Annotated[float, Field(ge=0)] = 1
    """Put a frame of one colour around them."""
    upscale: Annotated[float, Field(ge=0)] = 1
    """Repeat every cell 2 to 4 times in height and width."""
    mirror: Annotated[float, Field(ge=0)] = 1
    """Attach their mirror image on the right, left, bottom or top."""

    def by_kind(self) -> dict[Kind, float]:
        """Return the weight of each kind."""
        return {kind: getattr(self, kind) for kind in KINDS}

    @model_validator(mode="after")
    def _some_kind(self) -> ChangeWeights:
        if not any(self.model_dump().values()):
            raise ValueError("all kinds weigh 0; use change_probability: 0 to change no task")
        return self


class ValidationRecipe(StrictModel):
    """Held-out dataset on which the model is evaluated every ``eval_steps`` and after the last step."""

    spec: Spec
    """Dataset spec."""
    prompt: str | None = None
    """None for the recipe's ``prompt``."""
    max_tasks: Annotated[int, Field(gt=0)] = 64
    """Number of tasks, taken from the start of the dataset: their first test output, without augmentation."""
    exact_tasks: Annotated[int, Field(ge=0)] = 0
    """For this many of them an answer is also generated greedily and compared with the true grid."""
    by: Literal["loss", "exact"] = "loss"
    """Which validation counts as better: lower ``loss`` per answer token, or a larger share of ``exact`` grids."""
    keep: Literal["last", "best"] = "last"
    """Which weights are saved: the last step's or the best validation's (the earliest among equals)."""
    patience: Annotated[int, Field(gt=0)] | None = None
    """Stop early after this many consecutive validations without improvement."""

    @model_validator(mode="after")
    def _has_grids(self) -> ValidationRecipe:
        if self.by == "exact" and not self.exact_tasks:
            raise ValueError("validation.by: exact needs exact_tasks above 0")
        if self.exact_tasks > self.max_tasks:
            raise ValueError(f"validation.exact_tasks {self.exact_tasks} is over max_tasks {self.max_tasks}")
        return self


class LoraRecipe(StrictModel):
    """LoRA options. Options that vLLM cannot load are refused before training unless ``serveable: false``."""

    rank: Annotated[int, Field(gt=0)] = 16
    """Rank of the update matrices."""
    alpha: Annotated[float, Field(gt=0)] = 32
    """The update is scaled by alpha / rank."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout before the first update matrix."""
    targets: str | list[str] = "all-linear"
    """``all-linear`` (all linear layers but the output layer), a regular expression, or a list of module names."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank) instead of alpha / rank."""
    init: str = "default"
    """default, gaussian, orthogonal, or (not serveable) pissa, olora."""
    rank_pattern: dict[str, int] = Field(default_factory=dict)
    """Rank by regular expression of module names, where it differs from ``rank``."""
    alpha_pattern: dict[str, float] = Field(default_factory=dict)
    """Alpha by regular expression of module names, where it differs from ``alpha``."""
    layers: list[int] | None = None
    """Indices of the layers that get an adapter, with a list of ``targets``; None for all."""
    dora: bool = False
    """Train DoRA (not serveable)."""
    bias: Literal["none", "all", "lora_only"] = "none"
    """Which biases are trained; only ``none`` is serveable."""
    modules_to_save: list[str] = Field(default_factory=list)
    """Modules that are trained fully and saved with the adapter (not serveable)."""

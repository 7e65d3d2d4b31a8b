"""Recipes: everything that decides a training run, as one typed and checked value.

Unknown keys are refused with a suggestion. ``trainers.recipe.yaml_file`` reads recipes from YAML.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from datetime import date as Date
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    model_validator,
)

from harness.core.errors import ConfigError
from harness.prompts.grid_encoder import DEFAULT_ENCODER
from harness.prompts.prompt_template import DEFAULT_PROMPT
from trainers.data.task_augmentation import KINDS, Kind
from trainers.recipe.explain import explain_errors

RecipeData = dict[str, object]
Share = Annotated[float, Field(ge=0, le=1)]
CHANGEABLE_KEYS = frozenset(
    {
        *("output_dir", "resume", "workers", "logging_steps", "save_steps", "keep_checkpoints", "report_to"),
        "gradient_checkpointing",
    }
)
"""Top-level keys that may differ between a run and its resumption: they do not decide what is learned."""
MICRO_BATCH_KEYS = frozenset({"tokens_a_pass", "micro_batch_size", "max_padding"})
"""Top-level keys that decide how a step is cut into forward passes, each of which draws its own dropout.

Without dropout they decide rounding only. A run may be resumed with others, and is told so."""


TEMPLATES = Path(__file__).parent.parent / "templates"
"""Chat templates that a recipe may name, for base models that have none."""
_BY_CONTENT = frozenset({"chat_template", "template_date"})
"""Keys that decide by what they come to, which is recorded beside the recipe."""
_NOT_VARIABLES = frozenset(
    {
        *("messages", "conversation", "tools", "documents", "chat_template", "add_generation_prompt", "tokenize"),
        *("continue_final_message", "return_dict", "return_tensors", "return_assistant_tokens_mask"),
        *("padding", "truncation", "max_length", "tokenizer_kwargs"),
    }
)


def _template_path(name: str) -> str:
    """The name of a shipped template, or the absolute path of a file, whatever folder a later command runs in."""
    return name if (TEMPLATES / f"{name}.jinja").is_file() else str(Path(name).expanduser().absolute())


def _as_variables(values: dict[str, JsonValue]) -> dict[str, JsonValue]:
    if wrong := sorted(_NOT_VARIABLES & values.keys()):
        raise ValueError(f"{', '.join(wrong)}: no variable of a chat template, but set for every prompt")
    return values


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def expand_home(value: object) -> object:
    """A path that begins with ``~`` with the home folder in its place; any other value as it is.

    Raises:
        ValueError: that user has no home folder.
    """
    if not isinstance(value, str) or not value.startswith("~"):
        return value
    path = os.path.expanduser(value)
    if path.startswith("~"):
        raise ValueError(f"{value!r}: no home folder is known for {value.split('/')[0]!r}")
    return path


def expand_spec(value: object) -> object:
    """A dataset spec with the home folder in place of ``~``, in its path and in that of ``#ids=``.

    Raises:
        ValueError: as ``expand_home``.
    """
    if not isinstance(value, str):
        return value
    return re.sub(r"(^(?:barc-\d+-\d+-)?|#ids=)(~[^#]*)", lambda found: f"{found[1]}{expand_home(found[2])}", value)


Spec = Annotated[str, BeforeValidator(expand_spec)]
"""A dataset spec."""
Location = Annotated[str, BeforeValidator(expand_home)]
"""A path, or a name that is no path."""


def normalize_datasets(value: object) -> object:
    """One dataset or several; a bare spec stands for a dataset without further options."""
    items = value if isinstance(value, list) else [value]
    return [{"spec": item} if isinstance(item, str) else item for item in items]


class StrictModel(BaseModel):
    """Base of a recipe and its parts: unknown keys and infinite numbers are refused, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DatasetRecipe(StrictModel):
    """One dataset of the mixture."""

    spec: Spec
    """A dataset spec, such as ``arc1/training`` or ``toy/cross#n=2000``."""
    prompt: str | None = None
    """The prompt of its samples; the recipe's own where None."""
    weight: Annotated[float, Field(gt=0)] | None = None
    """Its share, relative to the others. Where no dataset has one, each weighs as many as it has task ids."""
    resplit: bool | None = None
    """The recipe's own where None."""
    change_probability: Share | None = None
    """The recipe's own where None."""


class ChangeWeights(StrictModel):
    """How often each kind of problem change is drawn, relative to the others (``trainers.data.task_augmentation``)."""

    geometric: Annotated[float, Field(ge=0)] = 1
    """All inputs, or all outputs, under one of the symmetries."""
    padding: Annotated[float, Field(ge=0)] = 1
    """With a frame of one colour around them."""
    upscale: Annotated[float, Field(ge=0)] = 1
    """With every cell 2 to 4 times as high and wide."""
    mirror: Annotated[float, Field(ge=0)] = 1
    """With their mirror image beside, above or below them."""

    def by_kind(self) -> dict[Kind, float]:
        """The weight of each kind."""
        return {kind: getattr(self, kind) for kind in KINDS}

    @model_validator(mode="after")
    def _some_kind(self) -> ChangeWeights:
        if not any(self.model_dump().values()):
            raise ValueError("all kinds weigh 0; use change_probability: 0 to change no task")
        return self


class ValidationRecipe(StrictModel):
    """A held-out dataset that is asked every ``eval_steps`` and after the last step."""

    spec: Spec
    prompt: str | None = None
    max_tasks: Annotated[int, Field(gt=0)] = 64
    """At most this many tasks, the first of the dataset; their first test output, without augmentation."""
    exact_tasks: Annotated[int, Field(ge=0)] = 0
    """For this many of them an answer is generated greedily and compared with the exact grid."""
    by: Literal["loss", "exact"] = "loss"
    """What tells a better validation: a lower loss per answer token, or a larger share of exact grids."""
    keep: Literal["last", "best"] = "last"
    """Whose weights are the result: the last step's, or those of the best validation (the first of equals)."""
    patience: Annotated[int, Field(gt=0)] | None = None
    """Training ends after this many validations in a row that were not better than the best."""

    @model_validator(mode="after")
    def _has_grids(self) -> ValidationRecipe:
        if self.by == "exact" and not self.exact_tasks:
            raise ValueError("validation.by: exact needs exact_tasks above 0")
        if self.exact_tasks > self.max_tasks:
            raise ValueError(f"validation.exact_tasks {self.exact_tasks} is over max_tasks {self.max_tasks}")
        return self


class LoraRecipe(StrictModel):
    """The adapter. What vLLM cannot load is refused before training unless the recipe says ``serveable: false``."""

    rank: Annotated[int, Field(gt=0)] = 16
    alpha: Annotated[float, Field(gt=0)] = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: str | list[str] = "all-linear"
    """``all-linear`` (all but the output layer), a regular expression, or a list of module names."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank) instead of alpha / rank."""
    init: str = "default"
    """default, gaussian, orthogonal, or (not serveable) pissa, olora."""
    rank_pattern: dict[str, int] = Field(default_factory=dict)
    alpha_pattern: dict[str, float] = Field(default_factory=dict)
    layers: list[int] | None = None
    """Only these layers get an adapter; all where None."""
    dora: bool = False
    bias: Literal["none", "all", "lora_only"] = "none"
    modules_to_save: list[str] = Field(default_factory=list)


class Recipe(StrictModel):
    """A training run. Lengths are in tokens, sizes in samples; ``batch_size`` is that of one optimizer step in all."""

    model: Location
    """``tiny`` (the shipped base), a folder, or a Hugging Face model id."""
    output_dir: Annotated[Path, BeforeValidator(expand_home)]
    datasets: Annotated[list[DatasetRecipe], Field(min_length=1), BeforeValidator(normalize_datasets)]
    prompt: str = DEFAULT_PROMPT
    encoder: str = DEFAULT_ENCODER
    chat_template: Annotated[str, AfterValidator(_template_path)] | None = None
    """A file with a chat template instead of the model's own, or ``chatml``: for base models, which have none."""
    chat_template_kwargs: Annotated[dict[str, JsonValue], AfterValidator(_as_variables)] = Field(default_factory=dict)
    """Variables of the chat template, such as ``{enable_thinking: false}``; the adapter is asked with them too."""
    template_date: Date | None = None
    """The date that a chat template takes for today, if it writes it; by default that of the run's first start."""
    augment: bool = True
    """Show every sample under a fresh random symmetry, colour permutation and order of the train pairs."""
    resplit: bool = False
    """Pool the pairs of every task and split them anew into train and test, where all outputs are known."""
    change_probability: Share = 0.0
    """How often a task becomes a new one, by a change of all its inputs or of all its outputs."""
    change_weights: ChangeWeights = Field(default_factory=ChangeWeights)
    adapter: Location | None = None
    """Go on from this adapter folder instead of a fresh adapter."""
    lora: LoraRecipe | None = Field(default_factory=LoraRecipe)
    """None trains all weights, which gives a full model instead of an adapter."""
    serveable: bool = True
    """Refuse what the server cannot load."""
    max_lora_rank: Annotated[int, Field(gt=0)] = 64
    """The highest rank that the server takes (its ``--max-lora-rank``)."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    max_steps: Annotated[int, Field(gt=0)]
    batch_size: Annotated[int, Field(gt=0)] = 16
    """Samples of one optimizer step over all processes, whatever their number."""
    tokens_a_pass: Annotated[int, Field(gt=0)] = 16384
    """Tokens in one forward pass of one process at most; it bounds memory. Dropout is drawn pass by pass."""
    micro_batch_size: Annotated[int, Field(gt=0)] | None = None
    """Samples in one forward pass at most."""
    max_padding: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """The largest share of padding in a forward pass: samples of other lengths get a pass of their own."""
    max_seq_len: Annotated[int, Field(gt=0)] = 4096
    too_long: Literal["skip", "drop_pairs"] = "skip"
    """What happens to a sample over ``max_seq_len``: another is drawn, or its last train pairs are dropped first."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    scheduler: Literal[
        "linear", "cosine", "cosine_with_restarts", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt"
    ] = "linear"
    scheduler_cycles: Annotated[int, Field(gt=0)] = 4
    """Cycles of ``cosine_with_restarts``."""
    warmup: Annotated[float, Field(ge=0)] = 0.05
    """Steps of warm-up; below 1 a share of ``max_steps``."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0
    optimizer: str = "adamw_torch"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the base weights and the arithmetic; ``auto`` is bfloat16 on a GPU that has it (compute
    capability 8.0 or newer), else float32."""
    quantize_4bit: bool = False
    gradient_checkpointing: bool = False
    sharding: Literal["none", "fsdp"] = "none"
    """``fsdp`` spreads weights and optimizer over the GPUs instead of repeating them on each."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that make batches besides each training process."""
    threads: Annotated[int, Field(gt=0, le=4096)] | None = None
    """CPU threads of torch; None leaves torch's choice."""
    logging_steps: Annotated[int, Field(gt=0)] = 10
    """Steps between two printed lines where there is no terminal; log.jsonl has every step."""
    save_steps: Annotated[int, Field(gt=0)] = 50
    eval_steps: Annotated[int, Field(gt=0)] = 50
    validation: ValidationRecipe | None = None
    report_to: Annotated[list[Literal["tensorboard", "wandb", "trackio"]], BeforeValidator(_as_list)] = Field(
        default_factory=list
    )
    resume: bool = True
    """Go on from the newest complete checkpoint in ``output_dir``; False starts over."""
    keep_checkpoints: bool = False
    """Keep the checkpoints of a finished run."""

    @model_validator(mode="after")
    def _weights_agree(self) -> Recipe:
        given = [d.weight is not None for d in self.datasets]
        if any(given) and not all(given):
            raise ValueError("datasets: some have a weight and some have none; give every one a weight, or none")
        return self

    @model_validator(mode="after")
    def _decays_after_warmup(self) -> Recipe:
        warmup = math.ceil(self.warmup * self.max_steps) if self.warmup < 1 else int(self.warmup)
        if self.scheduler == "polynomial" and warmup >= self.max_steps:
            raise ValueError(f"scheduler: polynomial needs steps after warm-up ({warmup} of {self.max_steps} steps)")
        return self

    @model_validator(mode="after")
    def _scales_no_loss_in_4bit(self) -> Recipe:
        if self.quantize_4bit and self.dtype == "float16":
            raise ValueError("dtype: float16 scales the loss, which training on 4-bit weights does not take; use auto")
        return self

    @model_validator(mode="after")
    def _validates_whole_models(self) -> Recipe:
        if self.sharding != "none" and self.validation is not None:
            raise ValueError("validation is not done where sharding spreads the model; leave it out")
        return self

    def deciding_values(self) -> RecipeData:
        """The keys that decide what is learned, flat (``lora.rank``), as JSON values."""
        values = self.model_dump(mode="json")
        if not self.chat_template_kwargs:
            del values["chat_template_kwargs"]  # runs of before this key was known go on
        return flatten({k: v for k, v in values.items() if k not in CHANGEABLE_KEYS | _BY_CONTENT})


def make_recipe(data: Mapping[str, object], where: str = "recipe") -> Recipe:
    """A recipe from plain values.

    Raises:
        ConfigError: one line for everything that is wrong with it.
    """
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{where}: {explain_errors(error, Recipe)}") from None


def changed_keys(before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    """The keys at which two flat recipes differ, sorted."""
    absent = object()
    return sorted(k for k in {*before, *after} if before.get(k, absent) != after.get(k, absent))


def flatten(value: Mapping[str, object], prefix: str = "") -> RecipeData:
    """Nested mappings and lists of mappings as one level of dotted keys."""
    flat: RecipeData = {}
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, Mapping) and item:
            flat |= flatten(item, f"{name}.")
        elif isinstance(item, list) and any(isinstance(i, Mapping) for i in item):
            flat |= flatten({str(i): part for i, part in enumerate(item)}, f"{name}.")
        else:
            flat[name] = item
    return flat

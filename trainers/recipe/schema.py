"""Define the recipe: every setting of a training run as one typed, validated value.

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
"""Top-level keys that may differ when a run is resumed, because they do not affect the trained weights."""
MICRO_BATCH_KEYS = frozenset({"tokens_a_pass", "micro_batch_size", "max_padding"})
"""Top-level keys that set how a training step is cut into micro-batches.

Each micro-batch draws its own dropout masks; without dropout these keys change rounding only. A run may be resumed with
other values and prints a warning if it is.
"""


TEMPLATES = Path(__file__).parent.parent / "templates"
"""Folder of the shipped chat templates, for base models that have none."""
_BY_CONTENT = frozenset({"chat_template", "template_date"})
"""Keys compared by the content they resolve to, which is recorded beside the recipe."""
_NOT_VARIABLES = frozenset(
    {
        *("messages", "conversation", "tools", "documents", "chat_template", "add_generation_prompt", "tokenize"),
        *("continue_final_message", "return_dict", "return_tensors", "return_assistant_tokens_mask"),
        *("padding", "truncation", "max_length", "tokenizer_kwargs"),
    }
)


def _template_path(name: str) -> str:
    """Return a shipped template's name unchanged, any other name as an absolute path.

    The path is absolute so that a later command in another folder finds the same file.
    """
    return name if (TEMPLATES / f"{name}.jinja").is_file() else str(Path(name).expanduser().absolute())


def _as_variables(values: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Refuse names that ``apply_chat_template`` or the prompt sets itself."""
    if wrong := sorted(_NOT_VARIABLES & values.keys()):
        raise ValueError(f"{', '.join(wrong)}: no variable of a chat template, but set for every prompt")
    return values


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


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
    return re.sub(r"(^(?:barc-\d+-\d+-)?|#ids=)(~[^#]*)", lambda found: f"{found[1]}{expand_home(found[2])}", value)


Spec = Annotated[str, BeforeValidator(expand_spec)]
"""Dataset spec, with ``~`` expanded."""
Location = Annotated[str, BeforeValidator(expand_home)]
"""Path with ``~`` expanded, or a name that is not a path."""


def normalize_datasets(value: object) -> object:
    """Turn one dataset or a list of them into a list of mappings; a bare spec becomes ``{"spec": spec}``."""
    items = value if isinstance(value, list) else [value]
    return [{"spec": item} if isinstance(item, str) else item for item in items]


class StrictModel(BaseModel):
    """Base class of a recipe and its parts: frozen, refuses unknown keys and infinite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


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
    prompt: str | None = None
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
    alpha: Annotated[float, Field(gt=0)] = 32
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
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
    """Indices of the layers that get an adapter; None for all."""
    dora: bool = False
    bias: Literal["none", "all", "lora_only"] = "none"
    modules_to_save: list[str] = Field(default_factory=list)
    """Modules that are trained fully and saved with the adapter (not serveable)."""


class Recipe(StrictModel):
    """One training run. Lengths are in tokens and sizes in samples."""

    model: Location
    """``tiny`` (the shipped base model), a folder, or a Hugging Face model id."""
    output_dir: Annotated[Path, BeforeValidator(expand_home)]
    datasets: Annotated[list[DatasetRecipe], Field(min_length=1), BeforeValidator(normalize_datasets)]
    prompt: str = DEFAULT_PROMPT
    """Name of the prompt template of all datasets that have none of their own."""
    encoder: str = DEFAULT_ENCODER
    """Grid encoder: how a grid is written as text."""
    chat_template: Annotated[str, AfterValidator(_template_path)] | None = None
    """A shipped template's name (``chatml``) or a file, instead of the model's own; base models have none."""
    chat_template_kwargs: Annotated[dict[str, JsonValue], AfterValidator(_as_variables)] = Field(default_factory=dict)
    """Variables of the chat template, such as ``{enable_thinking: false}``; evaluation uses them too."""
    template_date: Date | None = None
    """Date for chat templates that print today's date; by default the date on which the run first started."""
    augment: bool = True
    """Apply a new random symmetry, colour permutation and order of train pairs to every sample."""
    resplit: bool = False
    """Pool the pairs of each task and split them anew into train and test, where all outputs are known."""
    change_probability: Share = 0.0
    """Probability that a task is turned into a new one by changing all its inputs or all its outputs."""
    change_weights: ChangeWeights = Field(default_factory=ChangeWeights)
    adapter: Location | None = None
    """Continue training from this adapter folder instead of a new adapter."""
    lora: LoraRecipe | None = Field(default_factory=LoraRecipe)
    """None trains all weights and gives a full model instead of an adapter."""
    serveable: bool = True
    """Refuse options that the server cannot load."""
    max_lora_rank: Annotated[int, Field(gt=0)] = 64
    """Highest rank that the server loads (its ``--max-lora-rank``)."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    max_steps: Annotated[int, Field(gt=0)]
    """Number of training steps."""
    batch_size: Annotated[int, Field(gt=0)] = 16
    """Samples per training step, summed over all processes."""
    tokens_a_pass: Annotated[int, Field(gt=0)] = 16384
    """Maximum number of tokens in one micro-batch of one process, padding included. It bounds memory."""
    micro_batch_size: Annotated[int, Field(gt=0)] | None = None
    """Maximum number of samples in one micro-batch."""
    max_padding: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Maximum share of padding in a micro-batch; samples of other lengths go into another one."""
    max_seq_len: Annotated[int, Field(gt=0)] = 4096
    """Maximum length of a sample, prompt and answer."""
    too_long: Literal["skip", "drop_pairs"] = "skip"
    """For a sample over ``max_seq_len``: draw another one, or first drop its last train pairs."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    scheduler: Literal[
        "linear", "cosine", "cosine_with_restarts", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt"
    ] = "linear"
    scheduler_cycles: Annotated[int, Field(gt=0)] = 4
    """Number of cycles of ``cosine_with_restarts``."""
    warmup: Annotated[float, Field(ge=0)] = 0.05
    """Warm-up steps; below 1 a share of ``max_steps``."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0
    """Gradients are clipped to this norm; 0 for no clipping."""
    optimizer: str = "adamw_torch"
    """Name of an optimizer of transformers, such as ``adamw_torch`` or ``adafactor``."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """dtype of weights and arithmetic; ``auto``: bfloat16 on GPUs of compute capability 8.0 or newer, else float32."""
    quantize_4bit: bool = False
    """Load the base weights in 4 bits (NF4, needs bitsandbytes)."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, slower."""
    sharding: Literal["none", "fsdp"] = "none"
    """``fsdp`` splits weights and optimizer state over the GPUs instead of copying them to each."""
    workers: Annotated[int, Field(ge=0)] = 0
    """Data loader processes per training process."""
    threads: Annotated[int, Field(gt=0, le=4096)] | None = None
    """CPU threads of torch; None for torch's default."""
    logging_steps: Annotated[int, Field(gt=0)] = 10
    """Steps between two printed lines when stderr is not a terminal; log.jsonl always has every step."""
    save_steps: Annotated[int, Field(gt=0)] = 50
    """Training steps between two checkpoints."""
    eval_steps: Annotated[int, Field(gt=0)] = 50
    """Training steps between two validations."""
    validation: ValidationRecipe | None = None
    report_to: Annotated[list[Literal["tensorboard", "wandb", "trackio"]], BeforeValidator(_as_list)] = Field(
        default_factory=list
    )
    """Experiment trackers that receive the metrics."""
    resume: bool = True
    """Resume from the newest complete checkpoint in ``output_dir``; false starts over."""
    keep_checkpoints: bool = False
    """Keep the checkpoints after the run has finished."""

    @model_validator(mode="after")
    def _weights_agree(self) -> Recipe:
        has_weight = [d.weight is not None for d in self.datasets]
        if any(has_weight) and not all(has_weight):
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
        """Return the keys that affect the trained weights, flat (``lora.rank``), as JSON values."""
        values = self.model_dump(mode="json")
        if not self.chat_template_kwargs:
            del values["chat_template_kwargs"]  # absent in runs of versions that did not have this key
        return flatten({k: v for k, v in values.items() if k not in CHANGEABLE_KEYS | _BY_CONTENT})


def make_recipe(data: Mapping[str, object], where: str = "recipe") -> Recipe:
    """Build a recipe from plain values.

    Args:
        where: prefix of error messages, such as the file name.

    Raises:
        ConfigError: one line that lists everything wrong.
    """
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{where}: {explain_errors(error, Recipe)}") from None


def changed_keys(before: Mapping[str, object], after: Mapping[str, object]) -> list[str]:
    """Return the sorted keys at which two flat recipes differ."""
    absent = object()
    return sorted(k for k in {*before, *after} if before.get(k, absent) != after.get(k, absent))


def flatten(value: Mapping[str, object], prefix: str = "") -> RecipeData:
    """Flatten nested mappings and lists of mappings into one level of dotted keys."""
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

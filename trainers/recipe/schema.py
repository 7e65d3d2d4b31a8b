"""Define the recipe: every setting of a training run as one typed, validated value.

Unknown keys are refused with a suggestion. ``trainers.recipe.files.yaml_file`` reads recipes from YAML.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date as Date
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, JsonValue, ValidationError, model_validator

from harness.prompts.grid_encoder import DEFAULT_ENCODER
from harness.prompts.prompt_template import DEFAULT_PROMPT
from trainers.recipe.explain import InvalidValuesError, find_problems
from trainers.recipe.parts import (
    ChangeWeights,
    DatasetList,
    Folder,
    Location,
    LoraRecipe,
    Share,
    StrictModel,
    TrackerList,
    ValidationRecipe,
)
from trainers.recipe.ttt_part import TttRecipe

RecipeData = dict[str, object]
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
    """Return the template variables; refuse names that ``apply_chat_template`` or the prompt sets itself."""
    if wrong := sorted(_NOT_VARIABLES & values.keys()):
        raise ValueError(f"{', '.join(wrong)}: no variable of a chat template, but set for every prompt")
    return values


WITHOUT_DATASETS = "; without datasets, a recipe serves `bench ttt` and `bench preview --dataset SPEC`"
"""What a recipe for test-time training is for."""


class Recipe(StrictModel):
    """One training run. Lengths are in tokens and sizes in samples."""

    model: Location
    """``tiny`` (the shipped base model), a folder, or a Hugging Face model id."""
    output_dir: Folder
    """Folder of the adapter."""
    datasets: DatasetList
    """The mixture from which samples are drawn; only a recipe for test-time training may have none."""
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
    loss_on: Literal["answer", "outputs"] = Field(default="answer", exclude_if=lambda value: value == "answer")
    """``outputs``: the loss also covers the output grids of all train pairs that are shown after the first. Left out
    of records where it is ``answer``, as ``ttt`` is where it is None: older versions have neither."""
    resplit: bool = False
    """Pool the pairs of each task and split them again into train and test, where all outputs are known."""
    change_probability: Share = 0.0
    """Probability that a task is turned into a new one by changing all its inputs or all its outputs."""
    change_weights: ChangeWeights = Field(default_factory=ChangeWeights)
    """Relative probability of each kind of change."""
    adapter: Location | None = None
    """Continue training from this adapter folder instead of a new adapter."""
    lora: LoraRecipe | None = Field(default_factory=LoraRecipe)
    """None trains all weights and gives a full model instead of an adapter."""
    serveable: bool = True
    """Refuse options that the server cannot load."""
    max_lora_rank: Annotated[int, Field(gt=0)] = 64
    """Highest rank that the server loads (its ``--max-lora-rank``)."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of the samples, the new weights and dropout."""
    max_steps: Annotated[int, Field(gt=0)]
    """Number of training steps."""
    batch_size: Annotated[int, Field(gt=0)] = 16
    """Samples per training step, summed over all processes."""
    tokens_a_pass: Annotated[int, Field(gt=0)] = 16384
    """Maximum tokens in one micro-batch, padding included; it bounds memory. A longer sample gets one of its own."""
    micro_batch_size: Annotated[int, Field(gt=0)] | None = None
    """Maximum number of samples in one micro-batch."""
    max_padding: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Maximum share of padding in a micro-batch; samples of other lengths go into another one."""
    max_seq_len: Annotated[int, Field(gt=0)] = 4096
    """Maximum length of a sample, prompt and answer."""
    too_long: Literal["skip", "drop_pairs"] = "skip"
    """For a sample over ``max_seq_len``: draw another one, or first drop its last train pairs."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    """Highest learning rate, after warm-up."""
    scheduler: Literal[
        "linear", "cosine", "cosine_with_restarts", "constant", "constant_with_warmup", "polynomial", "inverse_sqrt"
    ] = "linear"
    """How the learning rate falls after warm-up (transformers' names)."""
    scheduler_cycles: Annotated[int, Field(gt=0)] = 4
    """Number of cycles of ``cosine_with_restarts``."""
    warmup: Annotated[float, Field(ge=0)] = 0.05
    """Warm-up steps; below 1 a share of ``max_steps``."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Weight decay of the optimizer."""
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
    """Held-out data; None validates nothing."""
    ttt: TttRecipe | None = Field(default=None, exclude_if=lambda value: value is None)
    """Test-time training: how ``bench ttt`` trains an adapter for each task. Other commands do not use it."""
    report_to: TrackerList = Field(default_factory=list)
    """Experiment trackers that receive the metrics."""
    resume: bool = True
    """Resume from the newest complete checkpoint in ``output_dir``; false starts over."""
    keep_checkpoints: bool = False
    """Keep the checkpoints after the run has finished."""

    @model_validator(mode="after")
    def _has_datasets(self) -> Recipe:
        if not self.datasets and self.ttt is None:
            raise ValueError("datasets: List should have at least 1 item (got [])")
        return self

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
        values = self.model_dump(mode="json", exclude={"ttt"})
        if not self.chat_template_kwargs:
            del values["chat_template_kwargs"]  # absent in runs of versions that did not have this key
        return flatten({k: v for k, v in values.items() if k not in CHANGEABLE_KEYS | _BY_CONTENT})


def make_recipe(data: Mapping[str, object], where: str = "recipe") -> Recipe:
    """Build a recipe from plain values.

    Args:
        where: prefix of error messages, such as the file name.

    Raises:
        InvalidValuesError: one line that lists everything wrong.
    """
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        alone = "ttt" in data and "datasets" not in data
        hint = WITHOUT_DATASETS if alone else ""
        raise InvalidValuesError(where, find_problems(error, Recipe), hint) from None


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

"""Load what training needs: base model, tokenizer, mixture, validation and TRL's configuration. Imports torch."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig, Trainer
from transformers.training_args import OptimizerNames
from transformers.utils import logging as hf_logging

from harness.core.errors import ConfigError
from trainers.data.micro_batches import samples_per_process
from trainers.data.mixture import Mixture
from trainers.model.inputs import RecipeInputs, open_recipe_mixture
from trainers.recipe.launcher_environment import process_count
from trainers.recipe.schema import Recipe
from trainers.run.trl_config import SFTConfig, chosen_dtype, training_arguments
from trainers.run.validation import Validation, open_validation


@dataclass(frozen=True)
class Setup:
    """Everything that a training session needs, loaded."""

    recipe: Recipe
    arguments: SFTConfig
    tokenizer: Any
    mixture: Mixture
    model: Any
    validation: Validation | None


def load_setup(inputs: RecipeInputs, recipe: Recipe, checkpoints: Path, mixture: Mixture | None = None) -> Setup:
    """Load everything that a recipe names, fast checks first.

    Args:
        recipe: the recipe of the inputs, possibly with another number of steps.
        mixture: samples of other data than the recipe's datasets.

    Raises:
        ConfigError, DataError: something that the recipe names cannot be used.
    """
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    dtype = chosen_dtype(recipe)
    arguments = _arguments(recipe, checkpoints, dtype)
    inputs = _with_shared_date(inputs)
    mixture = mixture or open_recipe_mixture(inputs)
    validation = open_recipe_validation(inputs, recipe)
    return Setup(recipe, arguments, inputs.chat.tokenizer, mixture, _load_base(inputs, dtype), validation)


def _with_shared_date(inputs: RecipeInputs) -> RecipeInputs:
    """Return the inputs with the template date of process 0, as other processes may have started after midnight."""
    if process_count() == 1 or inputs.chat.settings.date is None:
        return inputs
    days = [inputs.chat.settings.date]
    torch.distributed.broadcast_object_list(days)
    settings = replace(inputs.chat.settings, date=days[0])
    return replace(inputs, chat=replace(inputs.chat, settings=settings))


def _arguments(recipe: Recipe, checkpoints: Path, dtype: torch.dtype) -> SFTConfig:
    """Return TRL's configuration; building it also connects the processes that torchrun started."""
    if recipe.sharding == "fsdp" and (process_count() < 2 or not torch.cuda.is_available()):
        raise ConfigError("recipe: sharding: fsdp needs GPUs and at least two processes (torchrun --nproc_per_node N)")
    samples = samples_per_process(recipe.batch_size, process_count())
    _check_optimizer_name(recipe.optimizer)
    try:
        arguments = training_arguments(recipe, samples, checkpoints, dtype)
    except ValueError as error:
        raise ConfigError(f"recipe: the trainer does not take it: {' '.join(str(error).split())}") from error
    try:
        Trainer.get_optimizer_cls_and_kwargs(arguments)
    except (ImportError, ValueError) as error:
        why = " ".join(str(error).split())
        raise ConfigError(f"recipe: optimizer {recipe.optimizer} cannot be used here: {why}") from error
    if arguments.world_size != process_count():
        raise ConfigError(
            f"{process_count()} processes were launched, but {arguments.world_size} found each other: use torchrun"
        )
    return arguments


def _check_optimizer_name(name: str) -> None:
    """Refuse an optimizer that transformers does not know.

    Raises:
        ConfigError: the message suggests similar names.
    """
    known = [member.value for member in OptimizerNames]
    if name not in known:
        near = difflib.get_close_matches(name, known, 3, 0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
        raise ConfigError(f"recipe: optimizer {name!r} is not known; {hint}")


def model_options(recipe: Recipe, dtype: torch.dtype) -> dict[str, Any]:
    """Return the options of ``from_pretrained`` that the recipe decides: dtype and 4-bit quantization."""
    options: dict[str, Any] = {"dtype": dtype if recipe.lora else torch.float32}
    if recipe.quantize_4bit:
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype, bnb_4bit_use_double_quant=True
        )
    return options


def _load_base(inputs: RecipeInputs, dtype: torch.dtype) -> Any:
    """Load the base model with weights in ``dtype``, or in float32 if all weights are trained.

    Raises:
        ConfigError: it cannot be loaded, or its context is shorter than ``max_seq_len``.
    """
    recipe = inputs.recipe
    try:
        config = AutoConfig.from_pretrained(str(inputs.base))
        context = getattr(config.get_text_config(), "max_position_embeddings", None)
        if context is not None and recipe.max_seq_len > context:
            raise ConfigError(f"recipe: max_seq_len {recipe.max_seq_len} is over the model's context of {context}")
        model, info = AutoModelForCausalLM.from_pretrained(
            str(inputs.base), output_loading_info=True, use_safetensors=True, **model_options(recipe, dtype)
        )
    except (OSError, ValueError, SafetensorError) as error:
        why = " ".join(str(error).split())
        raise ConfigError(f"model {str(inputs.base)!r} cannot be loaded: {why}") from error
    except RuntimeError as error:
        if "ignore_mismatched_sizes" not in str(error):
            raise
        raise ConfigError(f"model {str(inputs.base)!r}: its weights have other shapes than its config.json") from error
    if missing := sorted(info["missing_keys"]):
        # transformers initialises them at random and only logs a warning.
        raise ConfigError(f"model {str(inputs.base)!r}: {len(missing)} weights are missing, such as {missing[0]}")
    return model


def open_recipe_validation(inputs: RecipeInputs, recipe: Recipe) -> Validation | None:
    """Return the validation of a recipe; None if it has none.

    Raises:
        DataError: no task has a known output and fits.
    """
    part = recipe.validation
    if part is None or inputs.held_out is None:
        return None
    return open_validation(
        inputs.held_out,
        inputs.chat.prompt_tokens(inputs.held_out_prompt),
        max_tasks=part.max_tasks,
        exact_tasks=part.exact_tasks,
        max_seq_len=recipe.max_seq_len,
        pad_id=padding_token(inputs.chat.tokenizer),
        eos_ids=inputs.chat.eos_ids,
    )


def padding_token(tokenizer: Any) -> int:
    """Return the token that fills batches; any will do, as padding is masked by position."""
    known = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    return int(next(token for token in known if token is not None))

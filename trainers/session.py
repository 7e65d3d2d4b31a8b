"""One training session: model, trainer, checkpoints and the finished folder. Imports torch."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging as hf_logging
from trl import SFTConfig

from harness.encoding import parse_encoder
from harness.errors import ConfigError, RunError
from harness.prompt import load_prompt
from harness.tokens import PromptTokenizer
from trainers.arguments import training_arguments
from trainers.artifact import LOG
from trainers.batches import samples_of_process
from trainers.checkpoints import newest_complete
from trainers.finish import finish
from trainers.loop import ArcTrainer, Reports, build_trainer
from trainers.progress import Progress, TrainingLog
from trainers.recipe import Recipe
from trainers.sft import CHECKPOINTS, Inputs, TrainingStopped, load_tokenizer, open_recipe_mixture
from trainers.signals import StopSignal
from trainers.validation import Validation, open_validation


def run_session(inputs: Inputs, output: Path, *, progress: bool) -> None:
    """Train from the newest complete checkpoint, or from the start, and finish the folder.

    Raises:
        ConfigError, DataError, RunError, TrainingStopped: see ``trainers.sft.train``.
    """
    recipe = inputs.recipe
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    dtype = chosen_dtype(recipe)
    arguments = _arguments(recipe, output / CHECKPOINTS, dtype)
    tokenizer = load_tokenizer(inputs.base)
    mixture = open_recipe_mixture(inputs, tokenizer)
    model = load_base(inputs, dtype)
    first = arguments.process_index == 0
    checkpoint = newest_complete(output / CHECKPOINTS)
    begun = int(checkpoint.name.split("-")[1]) if checkpoint else 0
    reports = Reports(
        TrainingLog(output / LOG, begun) if first else None,
        Progress(recipe.max_steps, recipe.logging_steps, progress and first),
    )
    validation = make_validation(recipe, tokenizer)
    with reports.progress, StopSignal() as stop:
        trainer = build_trainer(
            recipe, arguments, model, tokenizer, mixture, reports=reports, stop=stop, validation=validation
        )
        if checkpoint:
            reports.progress.note(f"going on after step {begun}")
        reports.progress.begin(begun)
        _train(trainer, checkpoint)
    if reports.log is not None:
        reports.log.close()
    if stop.came is not None and stop.stopped_at is not None and stop.stopped_at < recipe.max_steps:
        raise TrainingStopped(
            f"stopped by {stop.came.name} after step {stop.stopped_at} of {recipe.max_steps}; it is saved, "
            "the same command goes on from there"
        )
    if first:
        finish(inputs, mixture, trainer.accelerator.unwrap_model(trainer.model), tokenizer, output)


def _arguments(recipe: Recipe, checkpoints: Path, dtype: torch.dtype) -> SFTConfig:
    """TRL's arguments for the processes that torchrun started; making them brings the processes together."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    arguments = training_arguments(recipe, samples_of_process(recipe.batch_size, processes), checkpoints, dtype)
    if arguments.world_size != processes:
        raise ConfigError(
            f"{processes} processes were launched, but {arguments.world_size} found each other: use torchrun"
        )
    return arguments


def chosen_dtype(recipe: Recipe) -> torch.dtype:
    """The dtype of a recipe on this machine."""
    if recipe.dtype != "auto":
        dtype = getattr(torch, recipe.dtype)
        assert isinstance(dtype, torch.dtype)
        return dtype
    return torch.bfloat16 if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else torch.float32


def load_base(inputs: Inputs, dtype: torch.dtype) -> Any:
    """The base model, its weights in ``dtype``; in float32 where all of them are trained.

    Raises:
        ConfigError: it cannot be loaded, or its context is shorter than ``max_seq_len``.
    """
    recipe = inputs.recipe
    options: dict[str, Any] = {"dtype": dtype if recipe.lora else torch.float32}
    if recipe.quantize_4bit:
        options["quantization_config"] = _four_bits(dtype)
    try:
        config = AutoConfig.from_pretrained(str(inputs.base))
        context = getattr(config, "max_position_embeddings", None)
        if context is not None and recipe.max_seq_len > context:
            raise ConfigError(f"recipe: max_seq_len {recipe.max_seq_len} is over the model's context of {context}")
        return AutoModelForCausalLM.from_pretrained(str(inputs.base), **options)
    except (OSError, ValueError) as error:
        raise ConfigError(f"model {str(inputs.base)!r} cannot be loaded: {error}") from error


def _four_bits(dtype: torch.dtype) -> Any:
    import importlib.util

    from transformers import BitsAndBytesConfig

    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError("recipe: quantize_4bit needs bitsandbytes, not installed here: pip install bitsandbytes")
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype, bnb_4bit_use_double_quant=True
    )


def make_validation(recipe: Recipe, tokenizer: Any) -> Validation | None:
    """The validation of a recipe, if it has one."""
    from harness.datasets import open_dataset

    part = recipe.validation
    if part is None:
        return None
    tokens = PromptTokenizer(tokenizer, load_prompt(part.prompt or recipe.prompt), parse_encoder(recipe.encoder))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    return open_validation(
        open_dataset(part.spec),
        tokens,
        max_tasks=part.max_tasks,
        exact_tasks=part.exact_tasks,
        max_seq_len=recipe.max_seq_len,
        pad_id=pad or 0,
    )


def _train(trainer: ArcTrainer, checkpoint: Path | None) -> None:
    try:
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except torch.OutOfMemoryError as error:
        raise RunError(f"{_memory_advice(trainer)} ({error})") from error
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise RunError(
            f"the disk is full at step {trainer.state.global_step}: make room and start the same command again; "
            "the earlier checkpoints are whole"
        ) from error


def _memory_advice(trainer: ArcTrainer) -> str:
    limits = trainer.data_collator.limits
    return (
        f"out of memory after step {trainer.state.global_step}. Change, in this order: "
        f"tokens_a_pass={limits.tokens // 2} (it does not change the result), gradient_checkpointing=true, "
        "quantize_4bit=true, a smaller max_seq_len, a smaller model"
    )

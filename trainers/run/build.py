"""Build the trainer of a recipe: model, adapter, collator and TRL's trainer. Imports torch and TRL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from peft import get_peft_model
from transformers import PrinterCallback

from harness.core.errors import ConfigError
from trainers.data.hf_dataset import MixtureDataset
from trainers.data.micro_batches import Collator
from trainers.model.lora import lora_config, other_modules_pattern, targets_head
from trainers.model.start_adapter import load_start_adapter
from trainers.run.load import Setup, padding_token
from trainers.run.stop import StopAtStep, StopSignal
from trainers.run.trainer import ArcTrainer, RunOutputs
from trainers.run.trl_config import micro_batch_limits
from trainers.trackers.tracker_guard import guard_trackers
from trainers.trackers.tracker_runs import NoteTrackerRuns


def build_trainer(setup: Setup, rows: MixtureDataset, *, outputs: RunOutputs, stop: StopSignal) -> ArcTrainer:
    """Return the trainer of a recipe over the rows, which it takes in order.

    Raises:
        ConfigError: the LoRA targets do not match the model, or TRL refuses the options.
    """
    recipe = setup.recipe
    model = setup.model if recipe.adapter is None else load_start_adapter(setup.model, recipe)
    fresh = recipe.lora is not None and recipe.adapter is None
    originals = {} if fresh else {name: p.data for name, p in model.named_parameters() if p.requires_grad}
    collator = Collator(padding_token(setup.tokenizer), len(rows.mixture.sources), micro_batch_limits(recipe))
    config = lora_config(recipe.lora, other_modules_pattern(model)) if fresh and recipe.lora is not None else None
    try:
        if config is not None and recipe.lora is not None and targets_head(recipe.lora):
            model, config = get_peft_model(model, config), None
        trainer = ArcTrainer(
            model=model,
            args=setup.arguments,
            data_collator=collator,
            train_dataset=rows,
            eval_dataset=rows if setup.validation else None,
            processing_class=setup.tokenizer,
            peft_config=config,
            callbacks=[StopAtStep(stop), *([NoteTrackerRuns(recipe)] if recipe.report_to else [])],
            recipe=recipe,
            outputs=outputs,
            validation=setup.validation,
        )
    except ValueError as error:
        raise ConfigError(f"recipe: the trainer does not take it: {error}") from error
    trainer.remove_callback(PrinterCallback)
    guard_trackers(trainer.callback_handler.callbacks, recipe.report_to)
    if recipe.quantize_4bit:
        _keep_float32(trainer.model, originals)
    return trainer


def _keep_float32(model: Any, originals: Mapping[str, torch.Tensor]) -> None:
    """Convert the adapter of a 4-bit base from bfloat16, to which TRL rounds it, back to float32.

    PEFT loads the adapter of a checkpoint in float32 too, so that a resumed run computes in the same dtype.

    Args:
        originals: weights of a start adapter by name, before they were rounded.
    """
    for name, weight in model.named_parameters():
        if weight.requires_grad and weight.dtype == torch.bfloat16:
            weight.data = originals.get(name, weight.data).float()

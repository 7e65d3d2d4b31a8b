"""TRL's SFTTrainer as arc-bench drives it: counted samples, exact logs, clean stops. Imports torch and TRL."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer

from harness.errors import ConfigError, RunError
from trainers.arguments import pass_limits
from trainers.batches import Batch, Collator, split_passes
from trainers.lora import lora_config
from trainers.mixture import Draw, Mixture
from trainers.progress import Progress, TrainingLog
from trainers.recipe import Recipe
from trainers.signals import StopSignal
from trainers.validation import Validation


@dataclass
class Reports:
    """Where a run tells what it does; ``log`` is None on all processes but the first."""

    log: TrainingLog | None
    progress: Progress


class ArcTrainer(SFTTrainer):  # type: ignore[misc]  # TRL ships no types
    """SFTTrainer that counts what it consumes and evaluates by token.

    The loss of a step is the mean over all its answer tokens, in whatever passes and processes they lie
    (``num_items_in_batch`` of transformers).
    """

    control: Any

    def __init__(self, *args: Any, reports: Reports, validation: Validation | None, **kwargs: Any) -> None:
        self.reports, self.validation = reports, validation
        self.tally: torch.Tensor | None = None
        self.places = 0
        self._clock = time.monotonic()
        super().__init__(*args, **kwargs)

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Forward and backward over the passes of a step; gradients are exchanged in the last pass only."""
        counts = torch.tensor(inputs["counts"])
        self.tally = counts if self.tally is None else self.tally + counts
        self.places += inputs["input_ids"].numel()
        *first, last = self._as_many_on_every_process(inputs["passes"])
        losses = []
        for part in first:
            with self.accelerator.no_sync(model=model):
                losses.append(super().training_step(model, part, num_items_in_batch))
        losses.append(super().training_step(model, last, num_items_in_batch))
        return torch.stack(losses).sum()

    def _as_many_on_every_process(self, passes: list[Batch]) -> list[Batch]:
        """Split passes until all processes have as many: TRL exchanges its metrics in every pass."""
        if self.args.world_size == 1:
            return passes
        most = torch.tensor(len(passes), device=self.args.device)
        torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX)
        return split_passes(passes, int(most))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Pass the figures of a step on, and write its line."""
        super().log(logs, start_time)
        if "loss" not in logs or self.tally is None:
            return
        step = self.state.global_step
        if not math.isfinite(logs["loss"]):
            raise RunError(
                f"the loss is {logs['loss']} at step {step}: lower learning_rate, or use dtype float32; "
                "the checkpoints up to here are whole"
            )
        device = self.args.device
        counts = self.accelerator.reduce(self.tally.to(device), "sum").tolist()
        (places,) = self.accelerator.reduce(torch.tensor([self.places], device=device), "sum").tolist()
        now = time.monotonic()
        line = {
            "step": step,
            "loss": logs["loss"],
            "learning_rate": logs["learning_rate"],
            "grad_norm": logs.get("grad_norm"),
            "token_accuracy": logs.get("mean_token_accuracy"),
            "counts": counts,
            "padding": round(1 - sum(c[4] for c in counts) / places, 4),
            "seconds": round(now - self._clock, 4),
        }
        self._clock, self.tally, self.places = now, None, 0
        self._write(line, sum(c[4] for c in counts))

    def _write(self, line: dict[str, Any], tokens: int) -> None:
        self.reports.progress.step(line["step"], line["loss"], tokens)
        if self.reports.log is not None:
            self.reports.log.write(line)
            if self.control.should_save:
                self.reports.log.sync()

    def evaluate(
        self, eval_dataset: object = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """The token-weighted loss and the share of exact answers on the validation tasks."""
        assert self.validation is not None
        began = time.monotonic()
        with self.compute_loss_context_manager():
            values = self.validation.measure(self.model, self.accelerator)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in values.items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        if self.reports.log is not None:
            self.reports.log.write({"step": self.state.global_step, **metrics})
        self.reports.progress.note(
            f"step {self.state.global_step}: " + ", ".join(f"validation {k} {v:.4f}" for k, v in values.items())
        )
        self._clock += time.monotonic() - began
        return metrics

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the adapter's card is written once, with its manifest."""


class VirtualRows(Dataset):  # type: ignore[misc]  # datasets ships no types
    """Row numbers that become samples when they are read; SFTTrainer takes no other map-style class than Dataset.

    ``with_transform`` would do, but it pickles all tasks for a cache fingerprint: seconds, and not possible for mapped
    files.
    """

    mixture: Mixture

    @classmethod
    def of(cls, mixture: Mixture, length: int) -> VirtualRows:
        """The first ``length`` samples of a mixture."""
        dataset: VirtualRows = cls.from_dict({"i": range(length)})
        dataset.mixture = mixture
        return dataset

    def __getitem__(self, key: int) -> dict[str, Draw]:
        """Row ``key``."""
        return {"draw": self.mixture.draw(key)}

    def __getitems__(self, keys: list[int]) -> list[dict[str, Draw]]:
        """The rows of a step."""
        return [self[key] for key in keys]

    def __iter__(self) -> Iterator[dict[str, Draw]]:
        """The rows in order."""
        return (self[key] for key in range(len(self)))


class StopAtStep(TrainerCallback):  # type: ignore[misc]  # transformers is not followed
    """Ends training after the step in which a signal came, with a checkpoint."""

    def __init__(self, signal: StopSignal) -> None:
        self.signal = signal

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop on all processes if a signal reached any of them."""
        came = torch.tensor(int(self.signal.came is not None), device=args.device)
        if args.world_size > 1:
            torch.distributed.all_reduce(came, torch.distributed.ReduceOp.MAX)
        if came.item():
            self.signal.stopped_at = state.global_step
            control.should_save = state.global_step < state.max_steps
            control.should_training_stop = True


def build_trainer(
    recipe: Recipe,
    arguments: SFTConfig,
    model: Any,
    tokenizer: Any,
    mixture: Mixture,
    *,
    reports: Reports,
    stop: StopSignal,
    validation: Validation | None,
) -> ArcTrainer:
    """The trainer over a virtual dataset: row numbers that become samples when they are read, in order.

    Raises:
        ConfigError: the LoRA targets do not fit the model.
    """
    virtual = VirtualRows.of(mixture, recipe.max_steps * recipe.batch_size)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    fresh = recipe.lora is not None and recipe.adapter is None
    if recipe.adapter is not None:
        model = PeftModel.from_pretrained(model, recipe.adapter, is_trainable=True)
    try:
        trainer = ArcTrainer(
            model=model,
            args=arguments,
            data_collator=Collator(pad or 0, len(mixture.sources), pass_limits(recipe)),
            train_dataset=virtual,
            eval_dataset=virtual if validation else None,
            processing_class=tokenizer,
            peft_config=lora_config(recipe.lora) if fresh and recipe.lora is not None else None,
            callbacks=[StopAtStep(stop)],
            reports=reports,
            validation=validation,
        )
    except ValueError as error:
        raise ConfigError(f"recipe: the trainer does not take it: {error}") from error
    _drop_default_printer(trainer)
    if recipe.serveable:
        _refuse_embeddings([name for name, _ in trainer.model.named_parameters() if "lora_embedding" in name])
    return trainer


def _drop_default_printer(trainer: ArcTrainer) -> None:
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)


def _refuse_embeddings(names: Sequence[str]) -> None:
    if names:
        raise ConfigError(f"recipe: lora.targets reach the embeddings ({names[0]}), which vLLM does not load")

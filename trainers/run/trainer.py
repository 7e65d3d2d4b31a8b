"""Extend TRL's SFTTrainer: counted samples, a log of every step, checkpoints with digests. Imports torch and TRL."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from harness.core.errors import RunError
from trainers.data.micro_batches import Batch, split_micro_batches
from trainers.data.mixture import SampleCounts
from trainers.model.output_layer_loss import hidden_head_adapter, summed_answer_loss
from trainers.recipe.schema import Recipe
from trainers.run.errors import explain_write_errors
from trainers.run.progress import Progress
from trainers.run.stop import ignore_first_signal
from trainers.run.trl_config import SFTTrainer
from trainers.run.validation import Validation
from trainers.store.best_step import find_best_validation, patience_exhausted
from trainers.store.checkpoints import prune_best_weights, prune_checkpoints, write_best_weights
from trainers.store.digests import write_digests
from trainers.store.manifest import save_weights
from trainers.store.training_log import TrainingLog


@dataclass
class RunOutputs:
    """Log and progress display of a run; ``log`` is None on all processes except the first."""

    log: TrainingLog | None
    progress: Progress

    def write_line(self, line: dict[str, Any], sync: bool) -> None:
        """Append a line to the log.

        Args:
            sync: flush it to the disk, so that no checkpoint is newer than the log.
        """
        if self.log is not None:
            self.log.write(line)
            if sync:
                self.log.sync_to_disk()

    def report_not_finite(self, message: str) -> None:
        """Handle a loss or gradient that is not finite: end the run with an error.

        Raises:
            RunError: always. A subclass that returns ends training without an error.
        """
        raise RunError(message)


class ArcTrainer(SFTTrainer):  # type: ignore[misc]  # TRL ships no types
    """SFTTrainer that cuts steps into micro-batches, counts samples and tokens, and evaluates per token.

    The loss of a step is the mean over all its answer tokens, however they are spread over micro-batches and processes
    (``num_items_in_batch`` of transformers).
    """

    control: Any

    def __init__(
        self, *args: Any, recipe: Recipe, outputs: RunOutputs, validation: Validation | None, **kwargs: Any
    ) -> None:
        self.recipe, self.outputs, self.validation = recipe, outputs, validation
        self.counts: torch.Tensor | None = None
        self.places = 0
        self._n_parameters: int | None = None
        self._clock = time.monotonic()
        with hidden_head_adapter(kwargs["model"]) as self.has_adapted_head:
            super().__init__(*args, **kwargs)
        # Some classes (Gemma 3n) declare that they take no token count; TRL, which computes the loss itself, would
        # then divide each micro-batch by its own count.
        self.model_accepts_loss_kwargs = True

    def reset_counts(self) -> None:
        """Forget what was counted so far, before another training."""
        self.counts, self.places, self._clock = None, 0, time.monotonic()
        self._metrics["train"].clear()

    def get_train_dataloader(self) -> Any:
        """Return transformers' loader, with workers that survive the first signal."""
        loader = super().get_train_dataloader()
        inner = getattr(loader, "base_dataloader", loader)
        inner.worker_init_fn = partial(ignore_first_signal, inner.worker_init_fn)
        return loader

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Run forward and backward over the micro-batches of a step; gradients are exchanged in the last one only."""
        counts = torch.tensor(inputs["counts"])
        self.counts = counts if self.counts is None else self.counts + counts
        self.places += inputs["input_ids"].numel()
        micro_batches = self._equalize_number(inputs["micro_batches"])
        # A mixture of experts averages its own loss over this many micro-batches.
        self.current_gradient_accumulation_steps = len(micro_batches)
        *first, last = micro_batches
        losses = []
        for micro_batch in first:
            with self.accelerator.no_sync(model=model):
                losses.append(super().training_step(model, micro_batch, num_items_in_batch))
        losses.append(super().training_step(model, last, num_items_in_batch))
        return torch.stack(losses).sum()

    def floating_point_ops(self, inputs: Mapping[str, Any]) -> int:
        """Return transformers' estimate for a step; the parameters are counted once, not in every step."""
        if self._n_parameters is None:
            self._n_parameters = int(self.model.num_parameters(exclude_embeddings=True))
        return 6 * int(inputs["input_ids"].numel()) * self._n_parameters

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return TRL's loss; with an adapter on the output layer our own, as TRL would leave that adapter out."""
        if not self.has_adapted_head:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        loss = summed_answer_loss(model, inputs) / num_items_in_batch
        return loss * self.accelerator.num_processes if self.args.average_tokens_across_devices else loss

    def _equalize_number(self, micro_batches: list[Batch]) -> list[Batch]:
        """Split micro-batches until all processes have equally many, since TRL exchanges its metrics in each."""
        if self.args.world_size == 1:
            return micro_batches
        most = torch.tensor(len(micro_batches), device=self.args.device)
        torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX)
        return split_micro_batches(micro_batches, int(most))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Pass a step's metrics to the trackers, and write its line to the log."""
        if "loss" not in logs or self.counts is None:
            super().log(logs, start_time)
            return
        step = self.state.global_step
        norm = logs.get("grad_norm")
        if not self._is_finite("loss", logs["loss"]):
            return
        if norm is not None and not math.isfinite(norm):
            # With a scaled loss, a step that overflows is skipped.
            if not self.args.fp16 and not self._is_finite("norm of the gradient", norm):
                return
            logs = {key: value for key, value in logs.items() if key != "grad_norm"}
            norm = None
        device = self.args.device
        counts = self.accelerator.reduce(self.counts.to(device), "sum").tolist()
        (places,) = self.accelerator.reduce(torch.tensor([self.places], device=device), "sum").tolist()
        totals = [SampleCounts(*values) for values in counts]
        samples, tokens = sum(c.drawn for c in totals), sum(c.tokens for c in totals)
        now = time.monotonic()
        seconds, self._clock, self.counts, self.places = now - self._clock, now, None, 0
        logs |= {"padding": 1 - tokens / places, "tokens_per_second": tokens / seconds}
        logs["samples_per_second"] = samples / seconds
        for name in ("mean_token_accuracy", "entropy"):
            self._metrics["train"].pop(name, None)  # TRL's mean over micro-batches, not weighted by tokens
        super().log(logs, start_time)
        self.outputs.progress.show_step(step, logs["loss"], samples=samples, tokens=tokens, places=places)
        line = {
            "step": step,
            "loss": logs["loss"],
            "learning_rate": logs["learning_rate"],
            "grad_norm": norm,
            "counts": counts,
            "padding": round(logs["padding"], 4),
            "seconds": round(seconds, 4),
        }
        self.outputs.write_line(line, self.control.should_save)

    def _is_finite(self, what: str, value: float) -> bool:
        """Return whether a figure of the last step is finite; if not, report it and end training."""
        if math.isfinite(value):
            return True
        self.outputs.report_not_finite(
            f"the {what} is {value} at step {self.state.global_step}: lower learning_rate, or use dtype float32; "
            "the checkpoints up to here are whole"
        )
        self.control.should_training_stop = True
        return False

    def evaluate(
        self, eval_dataset: object = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Return loss and share of exact answers on the validation tasks, and apply early stopping."""
        assert self.validation is not None
        began, step = time.monotonic(), self.state.global_step
        with self.compute_loss_context_manager():
            values = self.validation.evaluate_model(self.model, self.accelerator)
        self._is_finite("validation loss", values["loss"])
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in values.items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        self.outputs.progress.print_note(
            f"step {step}: " + ", ".join(f"validation {k} {v:.4f}" for k, v in values.items())
        )
        self._update_best()
        self.outputs.write_line({"step": step, **metrics}, self.control.should_save)
        self._clock += time.monotonic() - began
        return metrics

    def _update_best(self) -> None:
        """Save the weights of a new best validation, and end training if patience is exhausted."""
        part, step = self.recipe.validation, self.state.global_step
        assert part is not None
        best = find_best_validation(self.state.log_history, part)
        assert best is not None
        if part.keep == "best" and best.step == step and self.args.should_save:
            folder = Path(self.args.output_dir)
            with explain_write_errors(f"the weights of step {step}", folder):
                write_best_weights(folder, step, self.write_weights)
        if patience_exhausted(best, part) and step < self.state.max_steps:
            self.control.should_save = self.control.should_training_stop = True
            self.outputs.progress.print_note(
                f"training ends: {best.validations_since} validations in a row were not better than "
                f"validation {part.by} {best.value:.4f} at step {best.step}"
            )

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint with its digests, and remove old checkpoints and best weights that nothing needs."""
        folder, step = Path(self.args.output_dir), self.state.global_step
        with explain_write_errors(f"the checkpoint of step {step}", folder):
            super()._save_checkpoint(model, trial)
            if self.args.should_save:
                write_digests(folder / f"checkpoint-{step}")
        if self.args.should_save:
            prune_checkpoints(folder, keep=2)
            if self.recipe.validation is not None:
                prune_best_weights(folder, self.state.log_history, self.recipe.validation)

    def _save_rng_state(self, output_dir: str) -> None:
        """Write this process's random state, and wait for the others: the digests are written after all states."""
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()

    def write_weights(self, folder: Path) -> None:
        """Write the weights to be served; if they are sharded, all processes must take part."""
        state = self.accelerator.get_state_dict(self.model) if self.is_fsdp_enabled else None
        if self.args.should_save:
            save_weights(self.accelerator.unwrap_model(self.model), self.processing_class, folder, state)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the model card is written once, with the manifest."""

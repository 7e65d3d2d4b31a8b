"""Two steps of a run on its heaviest samples, to find a lack of memory before hours are spent. Imports torch."""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers.trainer_utils import SaveStrategy

from trainers.data.hf_dataset import MixtureDataset
from trainers.data.micro_batches import cut_micro_batches, samples_per_process
from trainers.data.mixture import Mixture
from trainers.model.inputs import RecipeInputs
from trainers.recipe.launcher_environment import process_count
from trainers.recipe.schema import Recipe
from trainers.run.errors import explain_training_errors
from trainers.run.load import load_setup, open_recipe_validation
from trainers.run.progress import Progress, format_duration
from trainers.run.stop import StopSignal, TrainingStopped
from trainers.run.trainer import RunOutputs, build_trainer
from trainers.run.trl_config import micro_batch_limits


@dataclass(frozen=True)
class StepSizes:
    """One step of a run, counted from 1, with what it asks of memory; lengths in tokens."""

    step: int
    tokens: int
    places: int
    """Of its largest forward pass, padding included."""
    longest: int
    """Its longest sample."""


@dataclass(frozen=True)
class RunSizes:
    """A run as its samples say: all of them were drawn, none was trained on."""

    steps: int
    tokens: int
    most_tokens: StepSizes
    fullest: StepSizes
    """The step with the largest forward pass; among equals the one with the longest sample."""


@dataclass(frozen=True)
class DryRun:
    """What two steps on the heaviest samples of a run took."""

    schedule: RunSizes
    peak_memory: int
    """Bytes: on the GPU where there is one, else of the whole process."""
    tokens_per_second: float
    """In the second of the two steps."""
    seconds_in_all: float
    """Of the whole run at that speed, without validation."""

    def as_text(self) -> str:
        """The dry run for people."""
        s, of = self.schedule, "of GPU memory" if torch.cuda.is_available() else "of memory"
        return "\n".join(
            (
                f"{s.steps} steps, {s.tokens:,} tokens in all",
                f"longest step: number {s.most_tokens.step} with {s.most_tokens.tokens:,} tokens",
                f"largest pass: {s.fullest.places:,} places in step {s.fullest.step}, whose longest sample has "
                f"{s.fullest.longest:,} tokens",
                f"both steps fit: {self.peak_memory / 2**30:.2f} GiB {of} at the peak, "
                f"{self.tokens_per_second:,.0f} tokens/s, "
                f"about {format_duration(self.seconds_in_all)} for the whole run",
            )
        )


def run_dry(inputs: RecipeInputs, *, progress: bool) -> DryRun:
    """Train two steps: the one with the most tokens, then the one with the largest forward pass; validate once.

    The first brings the optimizer's state into being, so that the second has the peak of the whole run. Nothing is
    written but a folder for temporary files.

    Raises:
        RunError: out of memory; the message says what to change. ConfigError, DataError: as training would.
    """
    recipe = inputs.recipe
    small = recipe.model_copy(update={"max_steps": 2, "validation": None, "report_to": [], "workers": 0})
    with tempfile.TemporaryDirectory(prefix="bench-dry-run-") as folder, explain_training_errors(recipe):
        setup = load_setup(inputs, small, Path(folder))
        setup.arguments.save_strategy = SaveStrategy.NO
        watch = _Watch(progress and setup.arguments.process_index == 0)
        watch.print_note(f"drawing the {recipe.max_steps * recipe.batch_size:,} samples of the run")
        schedule = measure_run_sizes(setup.mixture, recipe)
        size = recipe.batch_size
        steps = (schedule.most_tokens.step, schedule.fullest.step)
        rows = MixtureDataset.from_mixture(
            setup.mixture, [i for step in steps for i in range((step - 1) * size, step * size)]
        )
        with StopSignal() as stop:
            trainer = build_trainer(setup, rows, reports=RunOutputs(None, watch), stop=stop)
            watch.print_note(f"training on steps {steps[0]} and {steps[1]}")
            trainer.train()
        validation = open_recipe_validation(inputs, recipe)
        for part in validation.heaviest_batches(process_count()) if validation else ():
            with trainer.compute_loss_context_manager():
                part.evaluate_model(trainer.model, trainer.accelerator)
        if stop.received is not None:
            raise TrainingStopped(f"stopped by {stop.received.name}")
    return DryRun(schedule, _peak_memory(), watch.speed, schedule.tokens / watch.speed)


def measure_run_sizes(mixture: Mixture, recipe: Recipe) -> RunSizes:
    """Draw every sample of a run, some thousand a second, and find its heaviest steps."""
    limits, size = micro_batch_limits(recipe), recipe.batch_size
    each = samples_per_process(size, process_count())
    blocks = []
    for step in range(recipe.max_steps):
        lengths = [len(mixture.draw_sample(i).sample.ids) for i in range(step * size, (step + 1) * size)]
        shares = [lengths[k : k + each] for k in range(0, size, each)]
        places = max(share[ks[0]] * len(ks) for share in shares for ks in cut_micro_batches(share, limits))
        blocks.append(StepSizes(step + 1, sum(lengths), places, max(lengths)))
    return RunSizes(
        len(blocks),
        sum(b.tokens for b in blocks),
        max(blocks, key=lambda b: b.tokens),
        max(blocks, key=lambda b: (b.places, b.longest)),
    )


class _Watch(Progress):
    """Measures the last step; no bar, no line a step."""

    def __init__(self, shown: bool) -> None:
        super().__init__(2, 1, shown)
        self.speed = 0.0
        self._last = time.monotonic()

    def show_step(self, step: int, loss: float, *, samples: int, tokens: int, places: int) -> None:
        """Take the time of a step."""
        now = time.monotonic()
        self.speed, self._last = tokens / (now - self._last), now


def _peak_memory() -> int:
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

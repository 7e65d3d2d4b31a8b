"""Train two steps on a run's heaviest samples, to detect a lack of memory before hours are spent. Imports torch."""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from contextlib import suppress
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
from trainers.run.build import build_trainer
from trainers.run.errors import explain_training_errors
from trainers.run.load import load_setup, open_recipe_validation
from trainers.run.progress import Progress, format_duration
from trainers.run.stop import StopSignal, TrainingStopped
from trainers.run.trainer import RunOutputs
from trainers.run.trl_config import micro_batch_limits


@dataclass(frozen=True)
class StepSizes:
    """One training step, counted from 1, with the lengths that determine its memory, in tokens."""

    step: int
    tokens: int
    places: int
    """Size of its largest micro-batch, padding included."""
    longest: int
    """Its longest sample."""


@dataclass(frozen=True)
class RunSizes:
    """Sizes of a whole run, from samples that were drawn but not trained on."""

    steps: int
    tokens: int
    most_tokens: StepSizes
    """The step with the most tokens."""
    fullest: StepSizes
    """The step with the largest micro-batch; among equals the one with the longest sample."""


@dataclass(frozen=True)
class DryRun:
    """Measurements of two training steps on the heaviest samples of a run."""

    schedule: RunSizes
    peak_memory: int
    """Bytes on the GPU, or of the whole process without one."""
    tokens_per_second: float
    """Speed of the second step."""
    seconds_in_all: float
    """Estimated duration of the whole run at that speed, without validation."""

    def as_text(self) -> str:
        """Return the result as text for people."""
        s, of = self.schedule, "of GPU memory" if torch.cuda.is_available() else "of memory"
        return "\n".join(
            (
                f"{s.steps} steps, {s.tokens:,} tokens in all",
                f"longest step: number {s.most_tokens.step} with {s.most_tokens.tokens:,} tokens",
                f"largest micro-batch: {s.fullest.places:,} tokens with padding, in step {s.fullest.step}, "
                f"whose longest sample has {s.fullest.longest:,} tokens",
                f"both steps fit: {self.peak_memory / 2**30:.2f} GiB {of} at the peak, "
                f"{self.tokens_per_second:,.0f} tokens/s, "
                f"about {format_duration(self.seconds_in_all)} for the whole run",
            )
        )


def run_dry(inputs: RecipeInputs, *, progress: bool) -> DryRun:
    """Train the step with the most tokens, then the one with the largest micro-batch, and validate once.

    The first step creates the optimizer's state, so that the second reaches the peak memory of the whole run. Nothing
    is written except a temporary folder.

    Raises:
        RunError: out of memory; the message says what to change. ConfigError, DataError: as in training.
    """
    recipe = inputs.recipe
    # The schedule of the learning rate decides neither memory nor speed, and may not go with two steps.
    changes: dict[str, object] = {
        "max_steps": 2,
        "validation": None,
        "report_to": [],
        "workers": 0,
        "scheduler": "constant",
        "warmup": 0,
    }
    small = recipe.model_copy(update=changes)
    with tempfile.TemporaryDirectory(prefix="bench-dry-run-") as folder, explain_training_errors(recipe):
        setup = load_setup(inputs, small, Path(folder))
        setup.arguments.save_strategy = SaveStrategy.NO
        meter = _SpeedMeter(progress and setup.arguments.process_index == 0)
        meter.print_note(f"drawing the {recipe.max_steps * recipe.batch_size:,} samples of the run")
        schedule = measure_run_sizes(setup.mixture, recipe)
        size = recipe.batch_size
        steps = (schedule.most_tokens.step, schedule.fullest.step)
        rows = MixtureDataset.from_mixture(
            setup.mixture, [i for step in steps for i in range((step - 1) * size, step * size)]
        )
        with StopSignal() as stop:
            trainer = build_trainer(setup, rows, outputs=RunOutputs(None, meter), stop=stop)
            meter.print_note(f"training on steps {steps[0]} and {steps[1]}")
            trainer.train()
        validation = open_recipe_validation(inputs, recipe)
        for part in validation.heaviest_batches(process_count()) if validation else ():
            with trainer.compute_loss_context_manager():
                part.evaluate_model(trainer.model, trainer.accelerator)
        if stop.received is not None:
            raise TrainingStopped(f"stopped by {stop.received.name}")
    return DryRun(schedule, _peak_memory(), meter.speed, schedule.tokens / meter.speed)


def measure_run_sizes(mixture: Mixture, recipe: Recipe) -> RunSizes:
    """Draw every sample of a run (some thousand per second) and find its heaviest steps."""
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


class _SpeedMeter(Progress):
    """Measures the speed of the last step; shows no bar and no line per step."""

    def __init__(self, shown: bool) -> None:
        super().__init__(2, 1, shown)
        self.speed = 0.0
        self._last = time.monotonic()

    def show_step(self, step: int, loss: float, *, samples: int, tokens: int, places: int) -> None:
        """Measure a step."""
        now = time.monotonic()
        self.speed, self._last = tokens / (now - self._last), now


def _peak_memory() -> int:
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_reserved())  # what other programs cannot have
    with suppress(OSError, StopIteration):  # the kernel's ru_maxrss may be that of the process that started this one
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    return (1 if sys.platform == "darwin" else 1024) * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

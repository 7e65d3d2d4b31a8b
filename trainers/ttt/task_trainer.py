"""Train one task after another with one base model in memory. Imports torch and TRL.

One trainer serves all tasks. Before each task the adapter's weights, the optimizer, the scheduler and the random state
are set back, so that the adapter of a task does not depend on the tasks before it.
"""

from __future__ import annotations

import gc
import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, set_seed
from transformers.trainer_utils import SaveStrategy

from harness.core.errors import RunError
from harness.core.grid import Pair
from harness.runs.schemas.task_training import TrainingOutcome
from trainers.data.hf_dataset import MixtureDataset
from trainers.model.inputs import RecipeInputs
from trainers.recipe.ttt_recipe import ttt_part
from trainers.run.build import build_trainer
from trainers.run.errors import explain_training_errors, explain_write_errors
from trainers.run.load import Setup, load_setup
from trainers.run.progress import Progress
from trainers.run.stop import StopSignal
from trainers.run.trainer import ArcTrainer, RunOutputs
from trainers.store.manifest import save_model
from trainers.ttt.adapter_folder import TrainedTask, write_adapter
from trainers.ttt.protocol import ReplyLine, StepLine, TaskLine
from trainers.ttt.task_samples import open_task, sample_order

Report = Callable[[StepLine], object]


class ParentGoneError(RunError):
    """The process that reads the results has ended."""


class TaskOutputs(RunOutputs):
    """Collects the log of the task in training, and reports its steps."""

    def __init__(self, report: Report) -> None:
        super().__init__(None, Progress(0, 1, shown=False))
        self.report = report
        self.task_id = ""
        self.lines: list[dict[str, Any]] = []
        self.not_finite: str | None = None

    def start_task(self, task_id: str) -> None:
        """Begin the log of a task."""
        self.task_id, self.lines, self.not_finite = task_id, [], None

    def write_line(self, line: dict[str, Any], sync: bool) -> None:
        """Keep the line of a step, and report the step."""
        self.lines.append(line)
        self.report(StepLine(task_id=self.task_id, step=line["step"], loss=line["loss"]))

    def report_not_finite(self, message: str) -> None:
        """Remember that a loss or gradient was not finite; training ends with this step."""
        self.not_finite = message.partition(";")[0]


class StopTask(TrainerCallback):  # type: ignore[misc]  # transformers is not followed
    """Callback that ends training with the step in which the deadline passes or the parent process has gone."""

    def __init__(self) -> None:
        self.deadline = math.inf
        self.parent = os.getppid()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Compare clock and parent process after each step."""
        if os.getppid() != self.parent:
            raise ParentGoneError("the process that started this one has ended")
        if time.monotonic() >= self.deadline:
            control.should_training_stop = True


class TaskTrainer:
    """Trains tasks one after another.

    Args:
        inputs: the recipe for test-time training, with what it names opened.
        work: folder of the adapters.
        scratch: an empty folder, which transformers wants for checkpoints; none are written.
        report: called with every training step.
    """

    def __init__(self, inputs: RecipeInputs, work: Path, scratch: Path, report: Report) -> None:
        self.inputs, self.recipe, self.work, self._scratch = inputs, inputs.recipe, work, scratch
        self._tokens = inputs.chat.prompt_tokens(inputs.inference_prompt)
        self._outputs, self._stop = TaskOutputs(report), StopTask()
        self._trainer: ArcTrainer | None = None
        self._initial: list[tuple[torch.nn.Parameter, torch.Tensor]] = []
        self._initial_scaler: dict[str, Any] = {}

    def train_task(self, line: TaskLine, pairs: Sequence[Pair]) -> ReplyLine:
        """Train one task, write its adapter, and return the reply.

        Raises:
            DataError: the task has too few pairs, or its samples are too long.
            RunError: out of memory, or a folder that cannot be written.
        """
        try:
            return self._train_task(line, pairs)
        finally:
            if torch.cuda.is_available():
                self._give_memory_back()

    def _train_task(self, line: TaskLine, pairs: Sequence[Pair]) -> ReplyLine:
        """Do what ``train_task`` says, but for giving memory back."""
        began = time.monotonic()
        mixture = open_task(self.recipe, self._tokens, line.task_id, tuple(pairs))
        rows = MixtureDataset.from_mixture(mixture, sample_order(self.recipe, line.task_id)[: self._n_rows()])
        self._outputs.start_task(line.task_id)
        with explain_training_errors(self.recipe):
            began += self._load(rows)
            trainer = self._prepare(rows)
            self._stop.deadline = min(began + self._limit(line), math.inf if line.until is None else line.until)
            if time.monotonic() < self._stop.deadline:
                trainer.train()
        steps = len(self._outputs.lines)
        if self._outputs.not_finite is not None:
            return self._without_adapter(line, "not_finite", began, self._outputs.not_finite)
        if not steps:
            return self._without_adapter(line, "untrained", began, "the deadline passed before the first step")
        if not all(bool(torch.isfinite(parameter).all()) for parameter, _ in self._initial):
            return self._without_adapter(line, "not_finite", began, f"weights are not finite after step {steps}")
        trained = TrainedTask(steps, time.monotonic() - began, self._outputs.lines)
        model = trainer.accelerator.unwrap_model(trainer.model)
        with explain_write_errors(f"the adapter of task {line.task_id}", self.work):
            return write_adapter(
                self.inputs, self.work, line.task_id, pairs, trained, lambda folder: save_model(model, folder)
            )

    def _give_memory_back(self) -> None:
        """Free what the next task makes anew: a server that slept meanwhile needs it, and torch would keep it."""
        if (trainer := self._trainer) is not None:
            trainer.optimizer = trainer.lr_scheduler = None
            trainer.accelerator.free_memory()  # of its references; transformers does it before every training
            for parameter, _ in self._initial:
                parameter.grad = None
        gc.collect()
        torch.cuda.empty_cache()

    def _limit(self, line: TaskLine) -> float:
        """Return the seconds that a task may take."""
        limits = (line.seconds, ttt_part(self.recipe).task_deadline)
        return min((limit for limit in limits if limit is not None), default=math.inf)

    def _n_rows(self) -> int:
        """Return the number of samples of all steps."""
        return self.recipe.max_steps * self.recipe.batch_size

    def _without_adapter(self, line: TaskLine, outcome: TrainingOutcome, began: float, reason: str) -> ReplyLine:
        steps = len(self._outputs.lines)
        return ReplyLine(
            task_id=line.task_id,
            outcome=outcome,
            adapter=None,
            steps=steps,
            samples=steps * self.recipe.batch_size,
            seconds=round(time.monotonic() - began, 3),
            digest=None,
            reason=reason,
        )

    def _prepare(self, rows: MixtureDataset) -> ArcTrainer:
        """Return the trainer for some rows, in the state that every task starts from."""
        trainer = self._trainer
        assert trainer is not None
        with torch.no_grad():
            for parameter, initial in self._initial:
                parameter.copy_(initial)
                parameter.grad = None
        if trainer.accelerator.scaler is not None:  # of float16, whose scale follows the gradients
            trainer.accelerator.scaler.load_state_dict(self._initial_scaler)
        trainer.train_dataset = rows
        trainer.optimizer = trainer.lr_scheduler = None
        trainer.reset_counts()
        set_seed(self.recipe.seed)
        return trainer

    def _load(self, rows: MixtureDataset) -> float:
        """Load the base model and build the trainer, once; return the seconds that this took."""
        began = time.monotonic()
        if self._trainer is None:
            self._trainer = self._build(rows)
        return time.monotonic() - began

    def _build(self, rows: MixtureDataset) -> ArcTrainer:
        set_seed(self.recipe.seed)
        setup: Setup = load_setup(self.inputs, self.recipe, self._scratch, rows.mixture)
        setup.arguments.save_strategy = SaveStrategy.NO
        trainer = build_trainer(setup, rows, outputs=self._outputs, stop=StopSignal())
        trainer.add_callback(self._stop)
        trainer.model.create_or_update_model_card = _write_no_card
        gc.collect()
        gc.freeze()  # transformers collects garbage before every training; what is loaded by now stays
        scaler = trainer.accelerator.scaler
        self._initial_scaler = {} if scaler is None else scaler.state_dict()
        self._initial = [(p, p.detach().clone()) for p in trainer.model.parameters() if p.requires_grad]
        return trainer


def _write_no_card(folder: str) -> None:
    """Write no README.md: PEFT's has the same empty text for every adapter."""

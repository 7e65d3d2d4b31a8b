"""Show the test-time training of one task: its plan, and decoded samples with the loss marked."""

from __future__ import annotations

from dataclasses import dataclass

from harness.core.errors import ConfigError
from harness.data.spec import open_dataset
from trainers.commands.preview import Preview, format_preview, preview_mixture
from trainers.model.inputs import open_inputs
from trainers.model.lora import check_lora
from trainers.recipe.extras import require_train_extra
from trainers.recipe.schema import Recipe
from trainers.recipe.ttt_recipe import ttt_part
from trainers.ttt.task_samples import open_task, sample_order, splits


@dataclass(frozen=True)
class TaskPlan:
    """How one task is trained on."""

    task_id: str
    train_pairs: int
    leave_out: list[int]
    """How many pairs the samples leave out."""
    fallback: bool
    """Whether the task has too few pairs for what the recipe leaves out."""
    splits: int
    """Distinct choices of pairs that are shown and asked for, before views."""
    samples: int
    """Distinct samples."""
    epochs: int
    steps: int
    start: str | None
    """Folder of the adapter from which training starts; None for new LoRA weights."""
    task_deadline: float | None
    """Seconds."""

    def as_text(self) -> str:
        """Return two lines of text."""
        left = " or ".join(map(str, self.leave_out)) + (" (too few pairs for more)" if self.fallback else "")
        limit = "" if self.task_deadline is None else f", cut after {self.task_deadline:g} s"
        return (
            f"test-time training of task {self.task_id}: {self.train_pairs} train pairs, {left} left out, "
            f"{self.splits} splits\n{self.samples} samples, {self.epochs} epoch{'s' * (self.epochs > 1)}, {self.steps} "
            f"steps{limit}; from {self.start or 'new LoRA weights'}"
        )


@dataclass(frozen=True)
class TaskPreview:
    """The preview of a task's samples, with its plan."""

    plan: TaskPlan
    preview: Preview

    def as_text(self) -> str:
        """Return both as text for people."""
        return f"{self.plan.as_text()}\n{format_preview(self.preview)}"


def preview_task(recipe: Recipe, spec: str, *, samples: int = 2) -> TaskPreview:
    """Draw all samples of the first task of a dataset as test-time training would, without loading the model.

    Args:
        recipe: a recipe for test-time training.
        samples: number of samples to decode.

    Raises:
        MissingExtraError, ConfigError, SpecError, DataError: as training would.
    """
    require_train_extra()
    check_lora(recipe)
    dataset = open_dataset(spec)
    if not len(dataset.ids):
        raise ConfigError(f"dataset {spec!r} has no task to show")
    task = dataset.task(0)
    inputs = open_inputs(recipe)
    mixture = open_task(recipe, inputs.chat.prompt_tokens(inputs.inference_prompt), task.id, task.train)
    part = ttt_part(recipe)
    usable = part.usable_leave_out(len(task.train))
    plan = TaskPlan(
        task_id=task.id,
        train_pairs=len(task.train),
        leave_out=usable,
        fallback=usable != list(part.leave_out),
        splits=sum(len(splits(len(task.train), left)) for left in usable),
        samples=part.n_samples(recipe.batch_size),
        epochs=part.epochs,
        steps=recipe.max_steps,
        start=recipe.adapter,
        task_deadline=part.task_deadline,
    )
    return TaskPreview(plan, preview_mixture(inputs, mixture, sample_order(recipe, task.id), samples))

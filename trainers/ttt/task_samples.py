"""Draw the training samples of a task from its train pairs, each as a function of (seed, task id, index)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING

from harness.core.augmentation import Augmentation, identity_view, random_view
from harness.core.errors import DataError
from harness.core.grid import Pair, Task
from harness.core.random_stream import Stream
from harness.core.symmetry import SYMMETRIES
from trainers.data.mixture import Mixture, Source
from trainers.data.task_augmentation import TaskChanges
from trainers.recipe.schema import Recipe
from trainers.recipe.ttt_part import TttAugment
from trainers.recipe.ttt_recipe import ttt_part

if TYPE_CHECKING:
    from harness.prompts.prompt_tokenizer import PromptTokenizer


@dataclass(frozen=True, slots=True)
class Split:
    """One way to make a training sample of a task: which train pairs are shown, and which one is asked for."""

    shown: tuple[int, ...]
    asked: int


def splits(n_train: int, left_out: int) -> list[Split]:
    """Return all splits that leave out 1 or 2 of ``n_train`` pairs: one is asked for, the second is not shown."""
    return [
        Split(tuple(k for k in range(n_train) if k not in dropped), dropped[0])
        for dropped in permutations(range(n_train), left_out)
    ]


@dataclass(frozen=True)
class LeaveOutTask:
    """The train pairs of a task as a dataset of one id, whose every draw leaves out some of the pairs."""

    id: str
    train: tuple[Pair, ...]
    leave_out: Sequence[int]
    augment: TttAugment

    @property
    def spec(self) -> str:
        """Return a name for error messages."""
        return f"train pairs of task {self.id}"

    @property
    def ids(self) -> Sequence[str]:
        """Return the task id."""
        return [self.id]

    def task(self, index: int, stream: Stream | None = None) -> Task:
        """Return a view of the task with one of its train pairs as its test pair."""
        stream = stream or Stream("leave out", self.id)
        split = stream.choice(splits(len(self.train), stream.choice(self.leave_out)))
        task = Task(self.id, tuple(self.train[k] for k in split.shown), (self.train[split.asked],))
        return self._view(stream, len(split.shown)).apply_task(task)

    def _view(self, stream: Stream, n_shown: int) -> Augmentation:
        """Draw a view, and undo the parts that are turned off; what is left on is drawn alike in any case."""
        view, plain = random_view(stream, n_shown), identity_view(n_shown)
        return Augmentation(
            view.symmetry if self.augment.symmetries else SYMMETRIES[0],
            view.colours if self.augment.colours else plain.colours,
            view.order if self.augment.order else plain.order,
        )


def open_task(recipe: Recipe, tokens: PromptTokenizer, task_id: str, train: tuple[Pair, ...]) -> Mixture:
    """Return the samples of a task as a mixture of one dataset, and check that it can supply them.

    Raises:
        DataError: the task has too few pairs, or nearly all its samples are too long.
    """
    part = ttt_part(recipe)
    usable = part.usable_leave_out(len(train))
    if not usable:
        raise DataError(f"task {task_id}: {len(train)} train pair(s); to leave one out at least two are needed")
    augment = part.augment if recipe.augment else TttAugment(symmetries=False, colours=False, order=False)
    changes = TaskChanges(False, recipe.change_probability, recipe.change_weights.by_kind())
    source = Source(LeaveOutTask(task_id, train, usable, augment), tokens, 1.0, changes)
    mixture = Mixture(
        (source,),
        Stream("test-time training", recipe.seed, task_id).below(1 << 62),
        recipe.max_seq_len,
        recipe.too_long == "drop_pairs",
        augment=False,
        loss_on_outputs=recipe.loss_on == "outputs",
    )
    mixture.check()
    return mixture


def sample_order(recipe: Recipe, task_id: str) -> list[int]:
    """Return the indices of the samples of all steps: every epoch has all samples, the first in order."""
    part = ttt_part(recipe)
    count = part.n_samples(recipe.batch_size)
    orders = [range(count)] + [
        Stream("epoch", recipe.seed, task_id, epoch).permutation(count) for epoch in range(1, part.epochs)
    ]
    return [index for order in orders for index in order]

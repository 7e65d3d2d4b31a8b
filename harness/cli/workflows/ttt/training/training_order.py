"""Train the tasks of a run one after the other, within its deadlines: all before the first answer, or meanwhile."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Protocol

from harness.cli.workflows.ttt.job import TttJob
from harness.cli.workflows.ttt.training.trainer import TrainerProcess
from harness.core.grid import Task
from trainers.ttt.protocol import ReplyLine, TaskLine


class Trained(Protocol):
    """The tasks whose training is over, in order, to be answered one after the other."""

    def current(self) -> tuple[Task, ReplyLine] | None:
        """Return the first task that is not answered, once its training is over; None if all are."""

    def advance(self) -> None:
        """Remove the current task, because it is answered."""


class Sleeping(Protocol):
    """Servers that can free their GPU's memory, as ``AdapterSite``."""

    def sleep(self) -> None:
        """Free the memory until ``wake``."""

    def wake(self) -> None:
        """Compute again."""


@dataclass
class TaskTraining:
    """Gives tasks to the trainer with the time that is left for them.

    ``--training-deadline`` ends a training, whose adapter is used. ``--deadline`` ends the waiting for it: the adapter
    does not become complete, so that a resumed run trains the task as a run without deadline does.
    """

    job: TttJob
    trainer: TrainerProcess
    _too_late: deque[ReplyLine | None] = field(default_factory=deque)
    """For every task given and not answered: the reply without training, or None if it was sent to the trainer."""

    def give(self, task: Task) -> None:
        """Give a task to the trainer, unless trainings are over; a complete adapter is used all the same."""
        options = self.job.options
        until = None if options.training_deadline is None else options.training_deadline.time
        again = task.id in options.again
        if until is not None and until <= monotonic() and (again or not self.job.adapter(task).exists()):
            self._too_late.append(_untrained(task))
            return
        self._too_late.append(None)
        self.trainer.send(task_line(self.job, task, until))

    def reply(self) -> ReplyLine:
        """Return the reply to the oldest task given, when its training is over.

        Raises:
            DeadlineError: the run's deadline passed. RunError: the trainer failed.
        """
        deadline = self.job.options.deadline
        return self._too_late.popleft() or self.trainer.wait(None if deadline is None else deadline.time)


class TrainedAlready:
    """Tasks whose training is over.

    Args:
        done: each with its reply, in order.
    """

    def __init__(self, done: Iterable[tuple[Task, ReplyLine]]) -> None:
        self._done = deque(done)

    def current(self) -> tuple[Task, ReplyLine] | None:
        """Return the first task that is not answered."""
        return self._done[0] if self._done else None

    def advance(self) -> None:
        """Remove the current task."""
        self._done.popleft()


class TrainedBefore(TrainedAlready):
    """All tasks are trained here before the first is answered."""

    def __init__(self, training: TaskTraining, tasks: Sequence[Task], show: Callable[[Task, ReplyLine], None]) -> None:
        super().__init__(())
        for task in tasks:
            training.give(task)
            reply = training.reply()
            show(task, reply)
            self._done.append((task, reply))


class TrainedMeanwhile:
    """While a task is answered, the next one is trained."""

    def __init__(self, training: TaskTraining, tasks: Sequence[Task], show: Callable[[Task, ReplyLine], None]) -> None:
        self._training, self._show = training, show
        self._waiting = deque(tasks)
        self._given: deque[Task] = deque()
        self._current: tuple[Task, ReplyLine] | None = None
        self._give_next()  # trained while the server starts

    def current(self) -> tuple[Task, ReplyLine] | None:
        """Return the first task that is not answered, after waiting for its training; the next one is then trained."""
        if self._current is None:
            if not self._given and not self._give_next():
                return None
            task = self._given.popleft()
            reply = self._training.reply()
            self._show(task, reply)
            self._current = task, reply
            self._give_next()
        return self._current

    def advance(self) -> None:
        """Remove the current task."""
        self._current = None

    def _give_next(self) -> bool:
        """Give the next task to the trainer; return False if there is none."""
        if self._waiting:
            task = self._waiting.popleft()
            self._training.give(task)
            self._given.append(task)
            return True
        return False


class TrainedInBlocks:
    """Blocks of tasks are trained while the servers sleep, because trainer and server cannot both fit on the GPU.

    Not run: vLLM's sleep mode needs a GPU.
    """

    def __init__(
        self,
        training: TaskTraining,
        tasks: Sequence[Task],
        show: Callable[[Task, ReplyLine], None],
        size: int = 8,
    ) -> None:
        self._training, self._show, self._size = training, show, size
        self._waiting = deque(tasks)
        self._done: deque[tuple[Task, ReplyLine]] = deque()
        self._site: Sleeping | None = None

    def on_site(self, site: Sleeping) -> TrainedInBlocks:
        """Return itself, after noting which servers sleep during training; others do when ours was started again."""
        self._site = site
        return self

    def current(self) -> tuple[Task, ReplyLine] | None:
        """Return the first task that is not answered; train the next block if none is left of the last one."""
        if not self._done and self._waiting:
            assert self._site is not None
            try:
                self._site.sleep()
                self._train_block()
            finally:  # servers that are not ours must not stay asleep
                self._site.wake()
        return self._done[0] if self._done else None

    def _train_block(self) -> None:
        """Train the next tasks."""
        for _ in range(min(self._size, len(self._waiting))):
            task = self._waiting[0]
            self._training.give(task)
            reply = self._training.reply()
            self._waiting.popleft()  # not before: after a failure of trainer and server, a restart trains it again
            self._show(task, reply)
            self._done.append((task, reply))

    def advance(self) -> None:
        """Remove the current task."""
        self._done.popleft()


def task_line(job: TttJob, task: Task, until: float | None) -> TaskLine:
    """Return what the trainer gets of a task: its train pairs, and the time that it may take.

    Args:
        until: ``monotonic()`` at which nothing more is trained; None for no such limit.
    """
    return TaskLine.of(task, seconds=job.options.task_deadline, until=until, again=task.id in job.options.again)


def _untrained(task: Task) -> ReplyLine:
    """Return the reply for a task whose training did not begin before the deadline of trainings."""
    reason = "the deadline of trainings (--training-deadline) was over before its own"
    return ReplyLine(
        task_id=task.id, outcome="untrained", adapter=None, steps=0, samples=0, seconds=0.0, digest=None, reason=reason
    )

"""Train a group of tasks on a node of a cluster, with the process that trains them on one machine."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from harness.cli.workflows.cluster.node import NodeWork, Outcome, run_on_node
from harness.cli.workflows.ttt.training.trainer import TrainerProcess
from harness.core.errors import DeadlineError
from trainers.ttt.protocol import ReplyLine, StepLine, TaskLine


@dataclass(frozen=True)
class GroupWork(NodeWork):
    """A group of tasks to train on any node.

    Attributes:
        tasks: their lines for the trainer, as JSON.
        until: ``time.time()`` at which nothing more is trained, which machines with correct clocks share; None without.
        abandoned: ``time.time()`` at which the training in work is abandoned, without an adapter; None without.
    """

    tasks: tuple[str, ...] = ()
    until: float | None = None
    abandoned: float | None = None


def train_group(work: GroupWork) -> Outcome:
    """Train the tasks of a group one after the other, and return their replies as the outcome's lines.

    Tasks whose adapters an earlier node completed are not trained again.

    Raises:
        KeyboardInterrupt: it was cancelled; complete adapters are kept.
    """
    return run_on_node(work, lambda log: Outcome(0, lines=_train_tasks(work, log)))


def _train_tasks(work: GroupWork, log: BinaryIO) -> tuple[str, ...]:
    """Return the replies of all tasks, as JSON; without those that were abandoned."""

    def write(text: str) -> None:
        log.write(f"{text}\n".encode())

    def show(step: StepLine) -> None:
        write(f"{step.task_id}: step {step.step}" + ("" if step.loss is None else f", loss {step.loss:.3f}"))

    until, abandoned = _monotonic(work.until), _monotonic(work.abandoned)
    folder, replies = Path(work.folder).parent, []
    with TrainerProcess(folder, Path(work.log).with_name("trainer.log"), show, write) as trainer:
        for text in work.tasks:
            line = TaskLine.model_validate_json(text)
            trainer.send(line if until is None else line.model_copy(update={"until": until}))
            try:
                reply: ReplyLine = trainer.wait(abandoned)
            except DeadlineError as error:
                write(f"{line.task_id} is not trained: {error}")
                break
            write(f"{reply.outcome} {reply.task_id}: {reply.steps} steps in {reply.seconds:.1f} s")
            replies.append(reply.model_dump_json())
    return tuple(replies)


def _monotonic(seconds: float | None) -> float | None:
    """Return a ``time.time()`` as ``time.monotonic()`` of this machine."""
    return None if seconds is None else time.monotonic() + seconds - time.time()

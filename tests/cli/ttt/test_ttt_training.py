"""The order in which ``bench ttt`` trains tasks and answers them, with a trainer that answers at once."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import cast

import pytest

from harness.cli.workflows.ttt.training.trainer import TrainerProcess
from harness.cli.workflows.ttt.training.training_order import TaskTraining, TrainedInBlocks
from harness.core.errors import RunError
from harness.core.grid import Task
from harness.data.dataset import iterate_tasks
from harness.data.spec import open_dataset
from trainers.recipe.ttt_recipe import make_ttt_recipe
from trainers.ttt.protocol import ReplyLine, TaskLine, write_recipe

TASKS = list(iterate_tasks(open_dataset("toy/cross/evaluation#n=5")))


@dataclass
class QuickTraining:
    """Gives every task a reply without an adapter; a task may fail."""

    events: list[str]
    failing: str = ""
    given: list[str] = field(default_factory=list)

    def give(self, task: Task) -> None:
        self.given.append(task.id)

    def reply(self) -> ReplyLine:
        task_id = self.given.pop(0)
        if task_id == self.failing:
            raise RunError("the trainer ended")
        self.events.append(task_id)
        return ReplyLine(task_id=task_id, outcome="untrained", adapter=None, steps=0, samples=0, seconds=0, digest=None)


@dataclass
class Servers:
    """Servers that note when they sleep and wake."""

    name: str
    events: list[str]

    def sleep(self) -> None:
        self.events.append(f"{self.name} sleeps")

    def wake(self) -> None:
        self.events.append(f"{self.name} wakes")


def in_blocks(training: QuickTraining) -> TrainedInBlocks:
    """Return blocks of two tasks."""
    return TrainedInBlocks(cast(TaskTraining, training), TASKS, lambda task, reply: None, size=2)


def test_the_servers_that_run_now_sleep_while_a_block_is_trained() -> None:
    events: list[str] = []
    blocks = in_blocks(QuickTraining(events))
    trained, answered = blocks.on_site(Servers("first", events)), []
    while (current := trained.current()) is not None:
        answered.append(current[0].id)
        trained.advance()
        if len(answered) == 2:
            trained = blocks.on_site(Servers("second", events))  # ours died and was started again
    ids = [task.id for task in TASKS]
    assert answered == ids
    first, second = ["first sleeps", *ids[:2], "first wakes"], ["second sleeps", *ids[2:4], "second wakes"]
    assert events == [*first, *second, "second sleeps", ids[4], "second wakes"]


def test_servers_wake_when_the_trainer_fails() -> None:
    events: list[str] = []
    trained = in_blocks(QuickTraining(events, failing=TASKS[1].id)).on_site(Servers("given", events))
    with pytest.raises(RunError, match="the trainer ended"):
        trained.current()
    assert events == ["given sleeps", TASKS[0].id, "given wakes"]


def test_a_task_whose_training_failed_is_trained_again_after_a_restart() -> None:
    """As when our own server dies too: it is started again, and the blocks go on with it."""
    events: list[str] = []
    training = QuickTraining(events, failing=TASKS[1].id)
    blocks = in_blocks(training)
    with pytest.raises(RunError, match="the trainer ended"):
        blocks.on_site(Servers("first", events)).current()
    training.failing = ""
    trained, answered = blocks.on_site(Servers("second", events)), []
    while (current := trained.current()) is not None:
        assert current[0].id == current[1].task_id
        answered.append(current[0].id)
        trained.advance()
    assert answered == [task.id for task in TASKS]


@pytest.mark.slow
def test_a_trainer_that_was_closed_forgets_what_it_did_not_answer(tmp_path: Path) -> None:
    """The real process; closed as before a restart of our own server, with a task given and not answered."""
    recipe = {"model": "tiny", "prompt": "compact-v0", "encoder": "MinimalGridEncoder()", "ttt": {"steps": 1}}
    write_recipe(tmp_path, make_ttt_recipe({**recipe, "batch_size": 2, "dtype": "float32", "threads": 1}))
    trainer = TrainerProcess(tmp_path, tmp_path / "trainer.log", lambda step: None, lambda notice: None)
    lines = [TaskLine.of(task, seconds=None, until=None, again=False) for task in TASKS[:2]]
    with trainer:
        trainer.send(lines[0])
        trainer.close()
        replies = []
        for line in lines:
            trainer.send(line)
            replies.append(trainer.wait(monotonic() + 300))
    assert [reply.task_id for reply in replies] == [line.task_id for line in lines]

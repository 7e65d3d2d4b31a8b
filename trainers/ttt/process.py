"""Run the process of test-time training: read tasks, train those without an adapter, and write replies."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from pydantic import ValidationError

from harness.core.errors import ConfigError, DataError
from trainers.model.inputs import RecipeInputs
from trainers.recipe.launcher_environment import process_count
from trainers.run.api import open_checked
from trainers.store.run_folder import lock_when_free
from trainers.ttt.adapter_folder import find_adapter, inputs_digest, remove_leftovers
from trainers.ttt.protocol import ADAPTERS, ReplyLine, StepLine, TaskLine, read_recipe

if TYPE_CHECKING:
    from trainers.ttt.task_trainer import TaskTrainer

Send = Callable[[StepLine | ReplyLine], None]
LOCK_SECONDS = 60.0
"""How long to wait for an earlier process, which ends with its step once the process that started it has ended."""


def run(work: Path, tasks: TextIO, replies: TextIO) -> None:
    """Answer every line of ``tasks`` with one of ``replies``.

    Raises:
        ConfigError, DataError, AdapterError, RunError: the recipe, a line or a folder is unusable.
    """
    recipe = read_recipe(work)
    inputs = open_checked(recipe, None)
    if process_count() > 1:
        raise ConfigError("test-time training runs in one process; do not start it with torchrun")
    for line in inputs.advice:
        print(f"warning: {line}", file=sys.stderr, flush=True)

    def send(line: StepLine | ReplyLine) -> None:
        replies.write(line.model_dump_json() + "\n")
        replies.flush()

    with lock_when_free(work / ADAPTERS, LOCK_SECONDS):
        remove_leftovers(work)
        trainer: TaskTrainer | None = None
        for number, text in enumerate(tasks, 1):
            task = _parse(text, number)
            pairs = task.pairs()
            reply = None if task.again else find_adapter(work, task.task_id, inputs_digest(inputs, task.task_id, pairs))
            if reply is None:
                trainer = trainer or _load_trainer(inputs, work, send)
                reply = _train(trainer, task)
            send(reply)
        remove_leftovers(work)


def _load_trainer(inputs: RecipeInputs, work: Path, send: Send) -> TaskTrainer:
    from trainers.run.errors import explain_write_errors
    from trainers.ttt.task_trainer import TaskTrainer

    scratch = work / ADAPTERS / ".scratch of the trainer.part"  # remove_leftovers removes it; no task has this name
    with explain_write_errors("the folder of the trainer", scratch):
        scratch.mkdir(exist_ok=True)
    return TaskTrainer(inputs, work, scratch, send)


def _train(trainer: TaskTrainer, task: TaskLine) -> ReplyLine:
    """Return the reply of a task; one that cannot supply samples is a reply too."""
    began = time.monotonic()
    try:
        return trainer.train_task(task, task.pairs())
    except DataError as error:
        seconds = round(time.monotonic() - began, 3)
        return ReplyLine(
            task_id=task.task_id,
            outcome="untrained",
            adapter=None,
            steps=0,
            samples=0,
            seconds=seconds,
            digest=None,
            reason=str(error),
        )


def _parse(text: str, number: int) -> TaskLine:
    try:
        return TaskLine.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "line"
        raise DataError(f"task line {number}: {where}: {first['msg']}") from None


def main() -> None:
    """Run the process with stdin and stdout; everything else that writes to stdout goes to stderr."""
    from harness.core.errors import ArcBenchError

    if len(sys.argv) != 2:
        print("usage: python -m trainers.ttt WORK  (tasks on stdin, see trainers/ttt/protocol.py)", file=sys.stderr)
        raise SystemExit(2)
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        run(Path(sys.argv[1]), sys.stdin, replies)
    except ArcBenchError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except BrokenPipeError:
        print("error: the process that reads the results has ended", file=sys.stderr)
        os._exit(1)  # closing the pipe again at exit would fail again
    except KeyboardInterrupt:
        raise SystemExit(130) from None

"""Define the lines that the process of test-time training reads and writes, and the folder in which it works.

``python -m trainers.ttt WORK`` reads the recipe from ``WORK/ttt-recipe.json`` (``write_recipe``). It reads one JSON
line per task on stdin (``TaskLine``) and writes one JSON line per task on stdout (``ReplyLine``), in the same order,
with progress lines in between (``StepLine``). It ends when stdin ends. A task's adapter is ``WORK/adapters/FOLDER``
(``adapter_path``), which exists only when it is complete.

An error that ends the process is one line on stderr (``error: …``) and a non-zero exit status. Diagnostics are on
stderr too: stdout has nothing but lines of this protocol.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.core.digests import text_digest
from harness.core.errors import ConfigError, DataError
from harness.core.files import write_atomically
from harness.core.grid import Grid, Pair, Rows, Task
from harness.runs.schemas.task_training import TrainingOutcome
from trainers.model.chat_template import today
from trainers.recipe.schema import Recipe, changed_keys
from trainers.recipe.ttt_recipe import make_ttt_recipe, task_values
from trainers.store.manifest import read_manifest

RECIPE_FILE = "ttt-recipe.json"
ADAPTERS = "adapters"
"""Folder of the tasks' adapters inside the work folder."""
_LONGEST = 56
"""Characters of a folder name, so that ``ttt-`` and the name are an adapter name of at most 64."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TaskLine(_Line):
    """One task to train on. It has no place for test pairs: what is not sent cannot leak."""

    task_id: str
    train: list[tuple[Rows, Rows]]
    """Input and output of each train pair, as rows of colours."""
    seconds: Annotated[float, Field(ge=0)] | None = None
    """Time for this task, in addition to the recipe's ``ttt.task_deadline``; loading the base model is not counted."""
    until: float | None = None
    """``time.monotonic()``, which all processes of a machine share, at which nothing more is trained."""
    again: bool = False
    """Train it again even if its adapter exists."""

    @staticmethod
    def of(task: Task, *, seconds: float | None = None, until: float | None = None, again: bool = False) -> TaskLine:
        """Return the line of a task; its test pairs are not read.

        Raises:
            DataError: a train pair has no output.
        """
        pairs = []
        for k, pair in enumerate(task.train):
            if pair.output is None:
                raise DataError(f"task {task.id}: train pair {k} has no output")
            pairs.append((pair.input.to_rows(), pair.output.to_rows()))
        return TaskLine(task_id=task.id, train=pairs, seconds=seconds, until=until, again=again)

    def pairs(self) -> tuple[Pair, ...]:
        """Return the train pairs.

        Raises:
            GridError: a grid is not valid.
        """
        place = f"task {self.task_id}, train pair"
        return tuple(
            Pair(
                Grid.from_rows(source, f"{place} {k}, input", long_rows=True),
                Grid.from_rows(target, f"{place} {k}, output", long_rows=True),
            )
            for k, (source, target) in enumerate(self.train)
        )


class StepLine(_Line):
    """Progress: a training step is done."""

    task_id: str
    step: int
    loss: float | None
    """Mean over the tokens in the loss; None if it is not finite."""


class ReplyLine(_Line):
    """The result of one task."""

    task_id: str
    outcome: TrainingOutcome
    adapter: str | None
    """Folder of the adapter, relative to the work folder."""
    steps: int
    samples: int
    """Samples trained on, repetitions included."""
    seconds: float
    """From reading the task to its last step, without loading the base model, which only the first task has to wait
    for; if the adapter existed already, the seconds of the training that wrote it."""
    digest: str | None
    """``content_hash`` of the adapter; its first 12 digits are its version in a registry."""
    reason: str | None = None


def parse_output(line: str) -> StepLine | ReplyLine:
    """Parse a line that the process wrote.

    Raises:
        DataError: it is no such line.
    """
    try:
        data = json.loads(line)
        return (ReplyLine if isinstance(data, dict) and "outcome" in data else StepLine).model_validate(data)
    except (ValueError, ValidationError) as error:
        raise DataError(f"test-time training: not a line of its protocol: {line[:200]!r}") from error


def folder_name(task_id: str) -> str:
    """Return the name of a task's folder: its id, or a shortened one with a hash where the id is no adapter name."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", task_id).strip("-_") or "task"
    if name == task_id and len(name) <= _LONGEST and _NAME.fullmatch(name):
        return name
    return f"{name[: _LONGEST - 9]}-{hashlib.sha256(task_id.encode()).hexdigest()[:8]}"


def adapter_path(work: Path, task_id: str) -> Path:
    """Return the folder of a task's adapter."""
    return work / ADAPTERS / folder_name(task_id)


def remove_adapter(work: Path, task_id: str) -> None:
    """Delete a task's adapter, if there is one; a kill leaves no incomplete folder under its name."""
    path = adapter_path(work, task_id)
    draft = path.with_name(f".{path.name}.removed.part")
    shutil.rmtree(draft, ignore_errors=True)
    if path.exists():
        path.rename(draft)
        shutil.rmtree(draft, ignore_errors=True)


def pair_digest(pair: Pair) -> str:
    """Return 16 hex digits that identify a train pair: a SHA-256 of ``[input rows, output rows]`` as compact JSON."""
    rows = [None if grid is None else grid.to_rows() for grid in (pair.input, pair.output)]
    return text_digest(json.dumps(rows, separators=(",", ":")))


def write_recipe(work: Path, recipe: Recipe) -> Path:
    """Write the recipe that the process reads, and return the file.

    The date for chat templates that print one is fixed by the first call, so that a resumed run has the same prompts.
    It is the starting adapter's if there is one.

    Raises:
        ConfigError: the folder has a recipe already, and adapters would differ by this one. A deadline may change.
    """
    path = work / RECIPE_FILE
    before = read_recipe(work) if path.exists() else None
    if recipe.template_date is None:
        date = before.template_date if before else _first_date(recipe)
        recipe = make_ttt_recipe({**recipe.model_dump(mode="json"), "template_date": date})
    if before is not None and (changed := changed_keys(task_values(before), task_values(recipe))):
        raise ConfigError(f"{path} is of another recipe; changed: {', '.join(changed)}. Give another output folder")
    work.mkdir(parents=True, exist_ok=True)
    text = json.dumps(recipe.model_dump(mode="json"), indent=2, ensure_ascii=False)
    write_atomically(path, text.encode() + b"\n")
    return path


def _first_date(recipe: Recipe) -> str:
    """Return the date that the starting adapter was trained with, else today's."""
    manifest = None if recipe.adapter is None else read_manifest(Path(recipe.adapter))
    return today() if manifest is None or manifest.template_date is None else manifest.template_date


def read_recipe(work: Path) -> Recipe:
    """Return the recipe of a work folder.

    Raises:
        ConfigError: there is none, or it is invalid.
    """
    path = work / RECIPE_FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    return make_ttt_recipe(data, str(path))

"""Records of test-time training in a run folder: its settings, what its model was trained on, and ttt.jsonl."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from pydantic import JsonValue, ValidationError

from harness.core.errors import RunError, truncate
from harness.core.files import write_atomically
from harness.runs.prediction_schema import Record

TrainingOutcome = Literal["trained", "cut", "not_finite", "untrained"]
"""What became of a task's training.

``trained``: every step was done. ``cut``: a deadline ended it after some steps, whose adapter is used. ``not_finite``:
a loss or gradient was not finite. ``untrained``: no step was done. The last two leave no adapter.
"""
TTT_LOG = "ttt.jsonl"
"""File of a run folder with one ``TaskRecord`` per line."""
ProtocolLabel = Literal[
    "nothing of these tasks", "demonstrations of these tasks at test time", "these tasks", "not known"
]
"""What a model was trained on, compared with the tasks on which it is benched."""


class TaskRecord(Record):
    """One line of ttt.jsonl: a task's training, and which model answered the task; written when it is answered."""

    task_id: str
    outcome: TrainingOutcome
    adapter: str | None
    """Folder of the task's adapter, relative to the run folder; None if there is none or it was discarded."""
    digest: str | None
    """Content hash of the task's adapter, whose first 12 digits are its version; None if there is none."""
    steps: int
    samples: int
    """Samples trained on, repetitions included."""
    train_seconds: float
    reason: str | None
    """Why training was cut or gave no adapter."""
    answered_by: str
    """The model that answered as its server names it: the task's adapter, the starting adapter, or the base."""
    own_adapter: bool
    """Whether that was the task's own adapter."""
    sample_seconds: float
    """Wall time of the session that completed the task's predictions, with loading and unloading the adapter."""


class TttConfig(Record):
    """Test-time training of a run: what determines the adapters beside the train pairs of the tasks."""

    recipe: dict[str, JsonValue]
    """The recipe's keys that affect weights, flat, without deadlines."""
    base: str
    """Digest of the base model."""
    start: str | None
    """Content hash of the adapter from which every task's training starts; None for new LoRA weights."""

    def flat_values(self) -> dict[str, JsonValue]:
        """Return the recipe's keys, and base and starting adapter, as one dictionary."""
        return {**self.recipe, "base": self.base, "starting adapter": self.start}


class Protocol(Record):
    """What the model of a run was trained on, with what this was derived from."""

    label: ProtocolLabel
    trained_on: list[str]
    """Specs of the known training datasets of the adapter and base that training started from."""
    leaked_tasks: int
    """Tasks of the run of which those datasets contain a pair, up to symmetries and renamed colours."""
    reason: str
    """How the label was derived, in a sentence."""


class TttPlan(Record):
    """Content of ttt.json, which is written before anything is trained; a run is resumed only with an equal one."""

    format: Literal[1]
    model: str
    """Name of the run's model."""
    dataset: str
    dataset_digest: str
    task_ids: list[str]
    config: TttConfig
    protocol: Protocol

    @staticmethod
    def read(path: Path) -> TttPlan | None:
        """Return the plan of an earlier session; None if there is none.

        Raises:
            RunError: it is damaged.
        """
        if not path.exists():
            return None
        try:
            return TttPlan.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            why = " ".join(str(error).split())[:200]
            raise RunError(f"{path}: cannot be read ({why}); choose another --out") from None

    def changes(self, other: TttPlan) -> list[str]:
        """Return what another plan has differently, such as ``learning_rate: 0.001 -> 0.004``."""
        mine, others = (
            {
                **p.model_dump(exclude={"config", "protocol", "model"}),
                "the run's model": p.model,  # the recipe has a model, too
                **p.config.flat_values(),
            }
            for p in (self, other)
        )
        return [
            f"{key}: {truncate(str(mine.get(key)))} -> {truncate(str(others.get(key)))}"
            for key in sorted(mine.keys() | others.keys())
            if mine.get(key) != others.get(key)
        ]


class TrainingLog:
    """ttt.jsonl of a run folder: one line per task that is answered. An incomplete last line is dropped."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def records(self) -> dict[str, TaskRecord]:
        """Return the records by task id; of a task with several lines the last. Empty without a file.

        Raises:
            RunError: a complete line is damaged.
        """
        by_id: dict[str, TaskRecord] = {}
        for number, line in enumerate(self._complete_lines(), 1):
            try:
                record = TaskRecord.model_validate_json(line)
            except ValidationError as error:
                first = error.errors()[0]
                field = ".".join(map(str, first["loc"])) or "content"
                raise RunError(f"{self.path}, line {number}: {field}: {first['msg']}") from None
            by_id[record.task_id] = record
        return by_id

    def append(self, record: TaskRecord) -> None:
        """Add a line and write it to disk.

        Raises:
            RunError: it cannot be written.
        """
        try:
            with self.path.open("ab", buffering=0) as file:
                os.ftruncate(file.fileno(), sum(map(len, self._complete_lines())))
                file.write(record.model_dump_json().encode() + b"\n")
                os.fsync(file.fileno())
        except OSError as error:
            raise RunError(f"{self.path}: cannot be written ({error.strerror}); make room and resume the run") from None

    def remove(self, task_ids: Iterable[str]) -> None:
        """Remove the lines of tasks that are to be done again, in one atomic step."""
        removed = set(task_ids)
        kept = [record for name, record in self.records().items() if name not in removed]
        write_atomically(self.path, b"".join(record.model_dump_json().encode() + b"\n" for record in kept))

    def _complete_lines(self) -> list[bytes]:
        if not self.path.exists():
            return []
        return [line for line in self.path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def count_outcomes(records: Mapping[str, TaskRecord]) -> dict[str, int]:
    """Return how many tasks have each outcome, sorted by name."""
    outcomes = [record.outcome for record in records.values()]
    return {kind: outcomes.count(kind) for kind in sorted(set(outcomes))}

"""ttt.jsonl: what became of each task of a run with test-time training."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from harness.core.errors import RunError
from harness.core.files import write_atomically
from harness.runs.checked_json import first_problem
from harness.runs.schemas.task_training import TaskRecord

TTT_LOG = "ttt.jsonl"
"""File of a run folder with one ``TaskRecord`` per line."""


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
                raise RunError(f"{self.path}, line {number}: {first_problem(error)}") from None
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

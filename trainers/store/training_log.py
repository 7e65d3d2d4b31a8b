"""The training log: ``log.jsonl`` with one line per step and per validation."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from harness.core.errors import RunError

Line = Mapping[str, Any]
RESTART_HINT = "The checkpoints up to here are whole: start the same command again"
"""What is left when a run failed for a reason outside, and what to do."""


class TrainingLog:
    """``log.jsonl``: one line a step, and one a validation. Lines after the step that is gone on from are dropped.

    Raises:
        RunError: a line cannot be written; the lines before it stay.
    """

    def __init__(self, path: Path, from_step: int = 0) -> None:
        self.path = path
        kept = [line for line in read_log(path) if line["step"] <= from_step]
        fresh = path.with_suffix(".tmp")
        try:
            fresh.write_text("".join(_text(line) for line in kept), encoding="utf-8")
            os.replace(fresh, path)
            # Unbuffered: what failed to be written must not be tried again when the file is closed.
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise self._full(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()

    def write(self, line: Line) -> None:
        """Append a line."""
        try:
            data = _text(line).encode()
            while data:
                data = data[self._file.write(data) :]
        except OSError as error:
            raise self._full(error) from error

    def sync_to_disk(self) -> None:
        """Bring all lines to the disk, so that a checkpoint never knows more steps than the log."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._full(error) from error

    def _full(self, error: OSError) -> RunError:
        return RunError(f"{self.path} cannot be written: {error.strerror}. Make room. {RESTART_HINT}")


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; a torn last line is left out."""
    if not path.exists():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            break
    return lines


def _text(line: Line) -> str:
    """A line as JSON, which has no word for a number that is not finite (older versions wrote such norms): null."""
    plain = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in line.items()}
    return json.dumps(plain, allow_nan=False) + "\n"

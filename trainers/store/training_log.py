"""Write and read ``log.jsonl``, which has one line per training step and per validation."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from harness.core.errors import RunError
from harness.core.files import atomic_writer

Line = Mapping[str, Any]
RESTART_HINT = "The checkpoints up to here are whole: start the same command again"
"""Second half of an error message after a failure from outside, such as a full disk."""


class TrainingLog:
    """Appends to ``log.jsonl``. Opening it drops the lines after step ``from_step``, where training resumes.

    Attributes:
        missing: how many of the steps up to ``from_step`` have no line, because the file was cut or lost.

    Raises:
        RunError: a line cannot be written; earlier lines remain.
    """

    def __init__(self, path: Path, from_step: int = 0) -> None:
        self.path = path
        lines = read_log(path, from_step) if from_step else []
        self.missing = from_step - len({line["step"] for line in lines if "loss" in line})
        try:
            with atomic_writer(path, draft=path.with_suffix(".tmp")) as file:
                file.write("".join(_text(line) for line in lines).encode())
            # Unbuffered, so that closing the file does not retry a failed write.
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
        """Flush all lines to the disk, so that no checkpoint is newer than the log."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._full(error) from error

    def _full(self, error: OSError) -> RunError:
        return RunError(f"{self.path} cannot be written: {error.strerror}. Make room. {RESTART_HINT}")


def read_log(path: Path, last_step: int | None = None) -> list[dict[str, Any]]:
    """Return the lines of a log, without an incomplete last line; an empty list if there is no file.

    Args:
        last_step: of the lines to return; what comes after them may be damaged, as it was not yet synced to the disk.

    Raises:
        RunError: another line is damaged.
    """
    lines: list[dict[str, Any]] = []
    texts = path.read_bytes().splitlines() if path.exists() else []
    for number, text in enumerate(texts, 1):
        try:
            line = json.loads(text)
        except ValueError:  # a cut line, or bytes that are no UTF-8
            line = None
        if isinstance(line, dict) and isinstance(line.get("step"), int):
            lines.append(line)
        elif last_step is not None and lines and lines[-1]["step"] >= last_step:
            break
        elif number < len(texts):
            raise RunError(
                f"{path}, line {number}: damaged, not an object with a step; to train again from the start, remove "
                "this training's folder, or its checkpoints by bench train --set resume=false"
            )
    return [line for line in lines if last_step is None or line["step"] <= last_step]


def _text(line: Line) -> str:
    """Return a line as JSON, with null for numbers that are not finite (older versions logged such gradient norms)."""
    plain = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in line.items()}
    return json.dumps(plain, allow_nan=False) + "\n"

"""predictions.jsonl: appended as predictions arrive, durable in groups, whole after any crash."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import orjson

from harness.errors import RunError
from harness.records import PredictionRecord

_BLOCK = 1 << 16
Key = tuple[str, str, int, int]


class PredictionLog:
    """Appends predictions to ``predictions.jsonl``; ``commit`` makes all appended ones durable at once.

    Opening drops a torn last line. A commit that fails (a full disk) leaves whole lines only.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: BinaryIO = self.path.open("ab", buffering=0)
        self._safe = _end_of_last_line(self.path)
        self._waiting: list[bytes] = []
        self._lock = threading.Lock()
        os.ftruncate(self._file.fileno(), self._safe)

    def done(self) -> Iterator[Key]:
        """The keys of the predictions that are already there.

        Raises:
            RunError: a line is not a prediction; it names the line.
        """
        for number, line in enumerate(whole_lines(self.path), 1):
            try:
                row = orjson.loads(line)
                yield row["model"], row["task_id"], row["test_index"], row["sample_index"]
            except (orjson.JSONDecodeError, KeyError, TypeError) as error:
                raise RunError(
                    f"{self.path}, line {number}: not a prediction ({error!r}); delete the line and resume"
                ) from None

    def append(self, record: PredictionRecord) -> None:
        """Take a prediction; it is durable after the next ``commit``."""
        self._waiting.append(record.model_dump_json().encode() + b"\n")

    def commit(self) -> None:
        """Write, flush and fsync what was appended; may be called in another thread than ``append``.

        Raises:
            RunError: it cannot be written; what was committed before is intact, and nothing appended is forgotten.
        """
        with self._lock:
            # Appending only adds behind these, so that the list may grow meanwhile.
            count = len(self._waiting)
            if data := b"".join(self._waiting[:count]):
                self._write(data, count)
                del self._waiting[:count]

    def _write(self, data: bytes, count: int) -> None:
        try:
            written = 0
            while written < len(data):
                written += self._file.write(memoryview(data)[written:]) or 0
            os.fsync(self._file.fileno())
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._file.fileno(), self._safe)
            raise RunError(
                f"{self.path}: cannot write ({error.strerror}); the last {count} predictions are not saved, "
                "all before are. Make room and repeat the command with --resume"
            ) from None
        self._safe += len(data)

    def close(self) -> None:
        """Commit and close."""
        try:
            self.commit()
        finally:
            self._file.close()


def whole_lines(path: Path) -> Iterator[bytes]:
    """The lines of a file that end; none where there is no file."""
    if path.exists():
        with path.open("rb") as file:
            yield from (line for line in file if line.endswith(b"\n"))


def _end_of_last_line(path: Path) -> int:
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - _BLOCK)
            file.seek(start)
            if (found := file.read(end - start).rfind(b"\n")) >= 0:
                return start + found + 1
            end = start
    return 0

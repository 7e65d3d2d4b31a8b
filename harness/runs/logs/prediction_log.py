"""predictions.jsonl: predictions are appended in groups, and after any crash the file holds complete lines."""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

from harness.core.errors import RunError
from harness.core.files import atomic_writer, complete_lines

_BLOCK = 1 << 16
_RETRYABLE_WORDS = (b'"error"', b'"refused"')
_CLOSING = b'"view":{'
"""Part of the closing record of a view and of no other line: quotes inside a JSON string are escaped."""


class PredictionLog:
    """Appends predictions to a file; ``commit`` writes all appended ones to disk at once.

    Opening removes an incomplete last line, or view. A commit that fails, for example on a full disk, leaves complete
    lines, or views, only.

    Args:
        views: whether the file holds enumerated views, which are appended and counted as whole blocks of lines.
        kind: what the lines are, for messages.
        repeat: what to do once there is room again, for messages.
    """

    def __init__(
        self,
        path: Path,
        views: bool = False,
        *,
        kind: str = "predictions",
        repeat: str = "repeat the command with --resume",
    ) -> None:
        self.path = path
        self._kind, self._repeat = "views" if views else kind, repeat
        self._file: BinaryIO = self.path.open("ab", buffering=0)
        self._committed_size = _complete_size(self.path, _CLOSING if views else b"")
        self._waiting: list[bytes] = []
        self._lock = threading.Lock()
        os.ftruncate(self._file.fileno(), self._committed_size)

    def append(self, line: bytes) -> None:
        """Add a prediction, as a line of JSON with its line break, or the block of lines of an enumerated view.

        It is on disk after the next ``commit``.
        """
        self._waiting.append(line)

    def commit(self) -> None:
        """Write the appended predictions and fsync; may run in another thread than ``append``.

        Raises:
            RunError: they cannot all be written. Earlier commits are intact, and the next commit tries the rest again.
        """
        with self._lock:
            # The list may grow meanwhile: append() adds after these lines only.
            if count := len(self._waiting):
                self._write(count)

    def _write(self, count: int) -> None:
        """Write the first ``count`` waiting lines and fsync. If the disk is full, keep those that were written whole.

        Raises:
            RunError: not all lines were written; the message says how many are missing.
        """
        lines = self._waiting[:count]
        data = memoryview(b"".join(lines))
        written = 0
        try:
            os.ftruncate(self._file.fileno(), self._committed_size)  # removes the rest of a failed write
            while written < len(data):
                written += self._file.write(data[written:]) or 0
            os.fsync(self._file.fileno())
        except OSError as error:
            ends = list(accumulate(map(len, lines)))
            whole = bisect_right(ends, written) if written < len(data) else 0
            self._commit_complete(lines[:whole])
            raise RunError(
                f"{self.path}: cannot write ({error.strerror}); the last {count - whole} {self._kind} are not saved, "
                f"all before are. Make room and {self._repeat}"
            ) from None
        self._committed_size += len(data)
        del self._waiting[:count]

    def _commit_complete(self, lines: Sequence[bytes]) -> None:
        """After a failed write, cut the file after these lines, which were written completely."""
        size = sum(map(len, lines))
        with suppress(OSError):
            os.ftruncate(self._file.fileno(), self._committed_size + size)
            self._committed_size += size
            del self._waiting[: len(lines)]
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Commit and close the file.

        Raises:
            RunError: as ``commit``; the file is closed all the same.
        """
        try:
            self.commit()
        finally:
            self._file.close()


def drop_retryable(path: Path) -> int:
    """Remove the predictions and views with outcome ``error`` or ``refused`` from a file, so that they are made again.

    ``refused`` counts because older versions recorded errors of the account or the server under that name. No other
    process may write to the file meanwhile.

    Returns:
        The number of removed predictions or views.

    Raises:
        RunError: a line is damaged, or the file cannot be rewritten; its content is then unchanged.
    """
    if not path.exists():
        return 0
    dropped = 0
    try:
        with atomic_writer(path, draft=path.with_name(f".tmp-{path.name}")) as file:
            for number, line in enumerate(complete_lines(path), 1):
                may_match = any(word in line for word in _RETRYABLE_WORDS)  # most lines need not be parsed
                if may_match and _outcome(line, f"{path}, line {number}") in ("error", "refused"):
                    dropped += 1
                else:
                    file.write(line)
    except OSError as error:
        raise RunError(f"{path}: cannot be rewritten ({error.strerror}); it is as it was. Make room") from None
    return dropped


def _outcome(line: bytes, where: str) -> object:
    """Return the outcome of a line of predictions.jsonl: of a closing record, that of the view."""
    import orjson

    try:
        fields = orjson.loads(line)
        return fields.get("view", fields)["outcome"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{where}: not a prediction ({error!r}); restore the file or run the benchmark again") from None


def _complete_size(path: Path, mark: bytes) -> int:
    """Return the size of a file up to the end of its last complete line that contains ``mark``; 0 without one.

    Raises:
        RunError: complete lines after it are not the answers of a view, so that they must not be removed.
    """
    with path.open("rb") as file:
        end = _last_position(file, file.seek(0, os.SEEK_END), b"\n") + 1
        if not mark or not end:
            return end
        start = _last_position(file, end, mark)
        file.seek(max(0, start))
        size = 0 if start < 0 else start + len(file.readline())
        file.seek(size)
        for index, line in enumerate(file.read(end - size).splitlines()):
            if not line.startswith(b"{") or b'"answer_index":%d,' % index not in line:
                raise RunError(
                    f"{path}: ends with lines that are neither an incomplete view nor closed by a record of this "
                    "program; restore the file or run the benchmark again"
                )
        return size


def _last_position(file: BinaryIO, end: int, pattern: bytes) -> int:
    """Return where the last occurrence of ``pattern`` in the first ``end`` bytes begins; -1 without one."""
    while end > 0:
        start = max(0, end - _BLOCK)
        file.seek(start)
        if (position := file.read(end - start).rfind(pattern)) >= 0:
            return start + position
        if not start:
            return -1
        end = start + len(pattern) - 1  # an occurrence may lie across two blocks
    return -1

"""Random access to the lines of a large JSON-lines file: a memory map and a cached table of where its rows are.

The table is built once at the speed of the disk, together with a checksum of the file, and kept in the cache folder
under the file's path; it is rebuilt when the file's size or modification time differ, or the table is damaged. Nothing
of it is held as Python objects, so that opening takes milliseconds and many processes share the pages.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import struct
import sys
import zlib
from array import array
from codecs import BOM_UTF8
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

from harness.core.errors import DataError
from harness.core.files import atomic_writer, cache_dir, cache_key, fingerprint, log

VERSION = 3
_HEAD = struct.Struct("<8sQQ")
"""Magic word, length of the JSON head, CRC-32 of all that follows."""
_MAGIC = b"arcbench"
_STRIDE = 3
"""A row's place in the table: first byte, end, and its line number counted from 1."""
_HASH_STEP = 1 << 24
MAX_REPORTED = 10
"""Bad lines reported one by one when a file is opened."""
MAX_LISTED = 1000
"""Bad lines kept by number; the rest are only counted."""

Table: TypeAlias = "memoryview | array[int]"
Progress = Callable[[int, int], object]
"""Called with (bytes done, bytes in all) while an index is built."""


class LineIndex:
    """The rows of one file. Blank lines are no rows; a line that is no complete JSON object is listed in ``bad``."""

    def __init__(self, path: Path, progress: Progress | None = None, strict: bool = False) -> None:
        """Open a file, with its cached table where that is fresh.

        Raises:
            DataError: the file cannot be read or holds no row, or with ``strict`` a line of it is damaged.
        """
        self.path, self.strict = path, strict
        size, mtime = fingerprint(path)
        if size == 0:
            raise DataError(f"{path}: the file is empty")
        with path.open("rb") as file:
            self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.cached = index_path(path)
        wanted = _wanted(size, mtime, self._data[: len(BOM_UTF8)] == BOM_UTF8)
        head, self._table = _load(self.cached, wanted) or self._build(wanted, progress)
        self.sha256: str = head["sha256"]
        self.n_bad: int = head["n_bad"]
        self.bad: list[tuple[int, str]] = [(line, reason) for line, reason in head["bad"]]
        if self.bad and strict:
            raise DataError(f"{path}, line {self.bad[0][0]}: {self.bad[0][1]}")
        for line, reason in self.bad[:MAX_REPORTED]:
            log.warning("%s, line %d: %s; the line is left out", path, line, reason)
        if self.n_bad > MAX_REPORTED:
            log.warning("%s: %d lines are left out in all", path, self.n_bad)
        if not len(self):
            raise DataError(f"{path}: no rows; expected one JSON object a line")

    def __len__(self) -> int:
        return len(self._table) // _STRIDE

    def row(self, index: int) -> bytes:
        """The bytes of row ``index``."""
        start = index * _STRIDE
        return self._data[self._table[start] : self._table[start + 1]]

    def line_number(self, index: int) -> int:
        """The line of the file, from 1, that row ``index`` stands on."""
        return self._table[index * _STRIDE + 2]

    def __reduce__(self) -> tuple[type[LineIndex], tuple[Path, None, bool]]:
        return LineIndex, (self.path, None, self.strict)

    def _build(self, wanted: dict[str, Any], progress: Progress | None) -> tuple[dict[str, Any], Table]:
        scan = _Scan(self._data, progress, wanted.get("start", 0))
        head = {**wanted, "sha256": scan.sha.hexdigest(), "n_bad": scan.n_bad, "bad": scan.bad}
        try:
            _save(self.cached, head, scan.table)
        except OSError as error:
            log.warning("cannot keep the index of %s (%s); it is built again each time", self.path, error)
        return head, scan.table


def index_path(path: Path) -> Path:
    """Where the table of a file is kept."""
    return cache_dir() / "index" / f"{cache_key(path)}.idx"


class _Scan:
    """One pass over a file: where its rows are, which lines are no rows, and its checksum."""

    def __init__(self, data: mmap.mmap, progress: Progress | None, start: int) -> None:
        self.table, self.sha = array("q"), hashlib.sha256()
        self.bad: list[tuple[int, str]] = []
        self.n_bad = 0
        line = hashed = 0
        size = len(data)
        while start < size:
            end = data.find(b"\n", start)
            end = size if end < 0 else end
            line += 1
            self._line(data, start, end, line)
            start = end + 1
            if start - hashed >= _HASH_STEP or start >= size:
                self.sha.update(memoryview(data)[hashed:start])
                hashed = start
                if progress is not None:
                    progress(min(start, size), size)

    def _line(self, data: mmap.mmap, start: int, end: int, line: int) -> None:
        first, last = data[start : min(start + 8, end)].strip(), data[max(start, end - 8) : end].strip()
        if first.startswith(b"{") and last.endswith(b"}"):
            self.table.extend((start, end, line))
        elif data[start:end].strip():
            self.n_bad += 1
            if self.n_bad <= MAX_LISTED:
                torn = first.startswith(b"{")
                self.bad.append((line, "truncated, it does not end with '}'" if torn else "not a JSON object"))


def _wanted(size: int, mtime: int, marked: bool) -> dict[str, Any]:
    """What the head of a fresh table says; ``marked``: rows start behind a byte order mark."""
    start = {"start": len(BOM_UTF8)} if marked else {}
    return {"version": VERSION, "byte_order": sys.byteorder, "size": size, "mtime_ns": mtime, **start}


def _save(path: Path, head: dict[str, Any], table: array[int]) -> None:
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)  # the table behind it stays aligned
    content = text + table.tobytes()
    with atomic_writer(path, durable=False) as file:
        file.write(_HEAD.pack(_MAGIC, len(text), zlib.crc32(content)) + content)


def _load(path: Path, wanted: dict[str, Any]) -> tuple[dict[str, Any], Table] | None:
    """The kept table, or None where there is none for this very file."""
    try:
        with path.open("rb") as file:
            view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        magic, length, checksum = _HEAD.unpack(view[: _HEAD.size])
        content = view[_HEAD.size :]
        if magic != _MAGIC or zlib.crc32(content) != checksum:
            return None
        head = json.loads(bytes(content[:length]))
        table = content[length:].cast("q")
    except (OSError, ValueError, struct.error, TypeError):  # none yet, or damaged: it is made again
        return None
    return (head, table) if wanted.items() <= head.items() else None

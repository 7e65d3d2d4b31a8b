"""Random access to the rows of a large JSON-lines file: a memory map and an index of where each row is.

The first open scans the file once, at the speed of the disk, for the rows' places and the file's SHA-256. Both are kept
in an index file in the cache folder, named after the path. A new scan replaces it if the file's size or modification
time has changed or the index file is damaged. The index is a memory map too, not Python objects, so opening takes
milliseconds and processes share its pages.

An index file holds the magic word, the length of the JSON head and the CRC-32 of all that follows (``_HEADER``); then
the head, padded to a multiple of 8 bytes; then the table of 64-bit integers.
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
_HEADER = struct.Struct("<8sQQ")
_MAGIC = b"arcbench"
_STRIDE = 3
"""Integers per row in the table: offset of its first byte, offset of its end, and its line number from 1."""
_HASH_STEP = 1 << 24
"""Bytes hashed at a time. Progress is reported at the same steps."""
MAX_REPORTED = 10
"""Bad lines logged one by one when a file is opened."""
MAX_LISTED = 1000
"""Bad lines kept in the index with number and reason; further ones are only counted."""

Table: TypeAlias = "memoryview | array[int]"
Progress = Callable[[int, int], object]
"""Called with (bytes done, bytes in all) while an index is built."""


class LineIndex:
    """The rows of one file. Blank lines are ignored; a line that is not a complete JSON object is listed in ``bad``.

    Attributes:
        sha256: hex digest of the file.
        n_bad: number of bad lines.
        bad: line number and reason of the first MAX_LISTED bad lines.
    """

    def __init__(self, path: Path, progress: Progress | None = None, strict: bool = False) -> None:
        """Open a file with its index, which is built first if there is no fresh one.

        Raises:
            DataError: the file cannot be read or has no rows, or with ``strict`` has a bad line.
        """
        self.path, self.strict = path, strict
        size, mtime = fingerprint(path)
        if size == 0:
            raise DataError(f"{path}: the file is empty")
        with path.open("rb") as file:
            self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        expected = _expected_head(size, mtime, self._data[: len(BOM_UTF8)] == BOM_UTF8)
        head, self._table = _load_index(index_path(path), expected) or self._build_index(expected, progress)
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
        """Return the bytes of row ``index``."""
        start = index * _STRIDE
        return self._data[self._table[start] : self._table[start + 1]]

    def line_number(self, index: int) -> int:
        """Return the line number of row ``index`` in the file, from 1."""
        return self._table[index * _STRIDE + 2]

    def __reduce__(self) -> tuple[type[LineIndex], tuple[Path, None, bool]]:
        """Pickle as a path: the receiving process opens the file and its index again."""
        return LineIndex, (self.path, None, self.strict)

    def _build_index(self, expected: dict[str, Any], progress: Progress | None) -> tuple[dict[str, Any], Table]:
        """Scan the file and save its index; if that fails, warn and use the index without saving it."""
        scan = _Scan(self._data, progress, expected.get("start", 0))
        head = {**expected, "sha256": scan.sha.hexdigest(), "n_bad": scan.n_bad, "bad": scan.bad}
        try:
            _save_index(index_path(self.path), head, scan.table)
        except OSError as error:
            log.warning("cannot keep the index of %s (%s); it is built again each time", self.path, error)
        return head, scan.table


def index_path(path: Path) -> Path:
    """Return the path of a file's index."""
    return cache_dir() / "index" / f"{cache_key(path)}.idx"


class _Scan:
    """The result of one pass over a file: table of rows, bad lines and checksum."""

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
            self._add_line(data, start, end, line)
            start = end + 1
            if start - hashed >= _HASH_STEP or start >= size:
                self.sha.update(memoryview(data)[hashed:start])
                hashed = start
                if progress is not None:
                    progress(min(start, size), size)

    def _add_line(self, data: mmap.mmap, start: int, end: int, line: int) -> None:
        """Add a line to the table, or to the bad lines, judging by its first and last characters only."""
        first, last = data[start : min(start + 8, end)].strip(), data[max(start, end - 8) : end].strip()
        if first.startswith(b"{") and last.endswith(b"}"):
            self.table.extend((start, end, line))
        elif data[start:end].strip():
            self.n_bad += 1
            if self.n_bad <= MAX_LISTED:
                torn = first.startswith(b"{")
                self.bad.append((line, "truncated, it does not end with '}'" if torn else "not a JSON object"))


def _expected_head(size: int, mtime: int, has_bom: bool) -> dict[str, Any]:
    """Return what the head of a fresh index must contain. With a byte order mark, rows start behind it."""
    start = {"start": len(BOM_UTF8)} if has_bom else {}
    return {"version": VERSION, "byte_order": sys.byteorder, "size": size, "mtime_ns": mtime, **start}


def _save_index(path: Path, head: dict[str, Any], table: array[int]) -> None:
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)  # aligns the table
    content = text + table.tobytes()
    with atomic_writer(path, durable=False) as file:
        file.write(_HEADER.pack(_MAGIC, len(text), zlib.crc32(content)) + content)


def _load_index(path: Path, expected: dict[str, Any]) -> tuple[dict[str, Any], Table] | None:
    """Return head and table of an index file, or None if there is none, it is damaged, or it is of an older file."""
    try:
        with path.open("rb") as file:
            view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        magic, length, checksum = _HEADER.unpack(view[: _HEADER.size])
        content = view[_HEADER.size :]
        if magic != _MAGIC or zlib.crc32(content) != checksum:
            return None
        head = json.loads(bytes(content[:length]))
        table = content[length:].cast("q")
    except (OSError, ValueError, struct.error, TypeError):
        return None
    return (head, table) if expected.items() <= head.items() else None

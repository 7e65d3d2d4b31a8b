"""The index of a JSON-lines file: kept in the cache, rebuilt if stale or damaged, readable across versions."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import sys
import zlib
from array import array
from pathlib import Path

import pytest

from harness.core.errors import DataError
from harness.data.line_index import MAX_LISTED, LineIndex, index_path
from tests.support.data_samples import barc_lines, write_lines

N = 30


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "rows.jsonl", barc_lines(N))


def open_index(path: Path) -> tuple[LineIndex, list[tuple[int, int]]]:
    """Open a file, and return its index with the calls of ``progress``: none if the index was not built."""
    calls: list[tuple[int, int]] = []
    return LineIndex(path, lambda done, total: calls.append((done, total))), calls


def test_an_index_is_built_once_and_rebuilt_if_the_file_changes(rows_file: Path) -> None:
    first, calls = open_index(rows_file)
    assert calls[-1] == (rows_file.stat().st_size,) * 2
    second, calls = open_index(rows_file)
    assert (len(second), second.sha256, calls) == (N, first.sha256, [])
    write_lines(rows_file, barc_lines(N + 1))
    third, calls = open_index(rows_file)
    assert len(third) == N + 1
    assert third.sha256 != first.sha256
    assert calls
    os.utime(rows_file, ns=(1, 1))
    assert open_index(rows_file)[1]


def test_rows_and_line_numbers(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n\n  {"b": 2} \r\nno row\n{"c": 3}')
    for _ in range(2):  # from the file, then from the saved index
        index = LineIndex(path)
        assert [index.row(i).strip() for i in range(len(index))] == [b'{"a": 1}', b'{"b": 2}', b'{"c": 3}']
        assert [index.line_number(i) for i in range(len(index))] == [1, 3, 5]
        assert (index.bad, index.n_bad) == ([(4, "not a JSON object")], 1)
        assert index.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def write_index_file(rows_file: Path, version: int) -> None:
    """Compose an index file by hand, so that no change of the code alters it. Its digest is not the file's."""
    data = rows_file.read_bytes()
    ends = [i for i, byte in enumerate(data) if byte == ord("\n")]
    starts = [0, *(end + 1 for end in ends[:-1])]
    table = array("q", [n for k in range(N) for n in (starts[k], ends[k], k + 1)])
    stat = rows_file.stat()
    head = {"version": version, "byte_order": sys.byteorder, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    text = json.dumps({**head, "sha256": "by hand", "n_bad": 0, "bad": []}).encode()
    text += b" " * (-len(text) % 8)
    content = text + table.tobytes()
    index_path(rows_file).parent.mkdir(parents=True, exist_ok=True)
    index_path(rows_file).write_bytes(struct.pack("<8sQQ", b"arcbench", len(text), zlib.crc32(content)) + content)


def test_an_index_file_of_an_earlier_release_still_opens(rows_file: Path) -> None:
    write_index_file(rows_file, version=3)
    index, calls = open_index(rows_file)
    assert (index.sha256, calls) == ("by hand", [])
    assert [index.row(i).decode() for i in range(len(index))] == barc_lines(N)


def test_an_index_file_of_another_version_is_rebuilt(rows_file: Path) -> None:
    write_index_file(rows_file, version=2)
    index, calls = open_index(rows_file)
    assert index.sha256 == hashlib.sha256(rows_file.read_bytes()).hexdigest()
    assert calls


@pytest.mark.parametrize("damage", [b"", b"garbage", b"arcbench" + b"\xff" * 40])
def test_a_damaged_index_file_is_rebuilt(rows_file: Path, damage: bytes) -> None:
    LineIndex(rows_file)
    whole = index_path(rows_file).read_bytes()
    for content in (damage, whole[:-5], whole[:-1] + bytes([whole[-1] ^ 1])):
        index_path(rows_file).write_bytes(content)
        assert len(LineIndex(rows_file)) == N
        assert index_path(rows_file).read_bytes() == whole


def test_an_unwritable_cache_is_only_a_warning(
    rows_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("ARC_BENCH_CACHE", str(tmp_path / "file"))
    index, calls = open_index(rows_file)
    assert (len(index), bool(calls)) == (N, True)
    assert "cannot keep the index" in caplog.text


def test_a_byte_order_mark_is_not_part_of_the_first_row(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "rows.jsonl", barc_lines(3))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    for _ in range(2):  # from the file, then from the saved index
        index = LineIndex(path)
        assert (index.row(0).decode(), len(index), index.bad) == (barc_lines(3)[0], 3, [])


def test_many_bad_lines_are_counted_but_few_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    n_bad = MAX_LISTED + 5
    index = LineIndex(write_lines(tmp_path / "rows.jsonl", ["x"] * n_bad + barc_lines(1)))
    assert (len(index.bad), index.n_bad) == (MAX_LISTED, n_bad)
    assert "line 10: not a JSON object" in caplog.text
    assert "line 11:" not in caplog.text
    assert f"{n_bad} lines are left out in all" in caplog.text


def test_files_without_rows_are_errors(tmp_path: Path) -> None:
    for lines, words in (([], "is empty"), (["", "x"], "no rows")):
        with pytest.raises(DataError, match=words):
            LineIndex(write_lines(tmp_path / "rows.jsonl", lines))
    with pytest.raises(DataError, match=r"none\.jsonl"):
        LineIndex(tmp_path / "none.jsonl")

"""Atomic writing, and decompressed copies in the cache."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest

from harness.core.errors import DataError, RunError
from harness.core.files import atomic_writer, find_files, uncompressed_path, write_atomically


def test_a_failed_write_leaves_the_old_content_and_no_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def write_half() -> None:
        with atomic_writer(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_old_content_stays_until_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "file"
    for old, new in ((None, b"first"), (b"first", b"second")):
        with atomic_writer(path) as file:
            file.write(new)
            file.flush()
            assert (path.read_bytes() if path.exists() else None) == old
        assert path.read_bytes() == new


def test_two_writers_of_one_file_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with atomic_writer(path) as one, atomic_writer(path) as other:
        one.write(b"one")
        other.write(b"other")
    assert path.read_bytes() == b"one"


def test_written_files_have_the_permissions_of_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_atomically(tmp_path / "file", b"")
    finally:
        os.umask(old)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(RunError, match="folder: cannot write"):
        write_atomically(tmp_path / "folder", b"")


def test_a_changed_copy_of_a_gzipped_file_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARC_BENCH_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "data.jsonl.gz"
    source.write_bytes(gzip.compress(b"content"))
    copy = uncompressed_path(source)
    assert (copy.name, copy.read_bytes()) == ("data.jsonl", b"content")
    copy.write_bytes(b"cont")
    assert uncompressed_path(source).read_bytes() == b"content"
    source.write_bytes(gzip.compress(b"other content"))
    assert uncompressed_path(source).read_bytes() == b"other content"
    assert not copy.exists()
    source.write_bytes(b"no gzip")
    with pytest.raises(DataError, match="not a whole gzip file"):
        uncompressed_path(source)


def test_find_files_follows_links_but_not_in_circles(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("a/1.json", "a/.hidden.json", "a/2.txt"):
        (tmp_path / name).touch()
    (tmp_path / "a" / "circle").symlink_to(tmp_path)
    (tmp_path / "link.json").symlink_to(tmp_path / "a" / "1.json")
    assert sorted(find_files(tmp_path, (".json",))) == [tmp_path / "a" / "1.json", tmp_path / "link.json"]
    (tmp_path / "lost.json").symlink_to(tmp_path / "missing")
    with pytest.raises(DataError, match=r"lost\.json: a link to .*missing, which is not there"):
        list(find_files(tmp_path, (".json",)))

"""Damaged indexes of large files and damaged copies in the cache."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from harness.core.errors import DataError
from harness.core.grid import Task
from harness.core.random_stream import Stream
from harness.data.dataset import iterate_tasks
from harness.data.line_index import LineIndex, index_path
from harness.data.spec import open_dataset
from tests.faults.damage import flipped_copies, sample_numbers, truncated_copies
from tests.faults.disks import FULL_DISKS
from tests.faults.matrix import count_cases
from tests.support.data_samples import barc_row

ROWS = 8


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ARC_BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(barc_row(Stream("rows", i), 8)) + "\n" for i in range(ROWS)))
    return path


def tasks_of(path: Path) -> tuple[list[Task], str]:
    """Return all tasks and the digest that a run would record."""
    dataset = open_dataset(str(path))
    return list(iterate_tasks(dataset)), dataset.digest()


def opened(path: Path) -> tuple[list[bytes], list[int], str]:
    index = LineIndex(path)
    return [index.row(i) for i in range(len(index))], [index.line_number(i) for i in range(len(index))], index.sha256


def check_index(rows: Path, bits: int, step: int) -> None:
    """Assert that a damaged index is replaced."""
    undisturbed = opened(rows)
    path = index_path(rows)
    data = path.read_bytes()
    for content in [
        *flipped_copies(data, sample_numbers("index", 8 * len(data), bits)),
        *truncated_copies(data, range(0, len(data), step)),
    ]:
        path.write_bytes(content)
        assert opened(rows) == undisturbed
        assert path.read_bytes() == data, "it was not built again"
        count_cases()


def test_damaged_indexes_are_built_again(rows: Path) -> None:
    """An index that is truncated or has a bit flipped is built again; all rows are the same."""
    check_index(rows, 100, 4)


@pytest.mark.long
def test_every_bit_of_an_index(rows: Path) -> None:
    """An index with any bit flipped, or truncated to any length, is built again."""
    check_index(rows, 1 << 30, 1)


def test_an_index_of_another_file(rows: Path, tmp_path: Path) -> None:
    """A valid index of another file, or of an earlier version of this one, is built again."""
    other = tmp_path / "other.jsonl"
    other.write_bytes(rows.read_bytes().split(b"\n", 1)[1])
    undisturbed = opened(rows)
    opened(other)
    for foreign in (index_path(other).read_bytes(), index_path(other).read_bytes()[:-24]):
        index_path(rows).write_bytes(foreign)
        assert opened(rows) == undisturbed
        count_cases()
    rows.write_bytes(other.read_bytes())
    assert opened(rows) == opened(other)


def test_damaged_unpacked_copies_are_unpacked_again(rows: Path, tmp_path: Path, cache: Path) -> None:
    """The unpacked copy of a .gz that was truncated or changed is unpacked again; the tasks are the same."""
    packed = tmp_path / "packed.jsonl.gz"
    packed.write_bytes(gzip.compress(rows.read_bytes()))
    undisturbed = tasks_of(packed)
    (copy,) = cache.glob("unpacked/*/*/packed.jsonl")
    data = copy.read_bytes()
    for content in [
        *flipped_copies(data, sample_numbers("copy", 8 * len(data), 10)),
        *truncated_copies(data, sample_numbers("cut copy", len(data), 10)),
    ]:
        copy.write_bytes(content)
        assert tasks_of(packed) == undisturbed
        count_cases()
    for seal in copy.parent.glob(".*"):
        seal.write_bytes(b"")
        assert tasks_of(packed) == undisturbed
        count_cases()


def check_packed(rows: Path, times: int) -> None:
    """Assert that a damaged .gz is refused or gives the same tasks."""
    packed = rows.with_suffix(".jsonl.gz")
    data = gzip.compress(rows.read_bytes())
    packed.write_bytes(data)
    undisturbed = tasks_of(packed)
    for content in [
        *flipped_copies(data, sample_numbers("gz", 8 * len(data), times)),
        *truncated_copies(data, sample_numbers("cut gz", len(data), times)),
    ]:
        packed.write_bytes(content)
        result: object
        try:
            result = tasks_of(packed)
        except DataError as error:
            result = undisturbed if packed.name in str(error) else error
        assert result == undisturbed
        count_cases()


def test_a_damaged_gz_is_refused(rows: Path) -> None:
    """A .gz that is truncated or has a bit flipped is refused by name, or gives the same tasks."""
    check_packed(rows, 20)


@pytest.mark.slow
def test_a_gz_damaged_at_many_places_is_refused(rows: Path) -> None:
    """A .gz damaged at more places is refused by name, or gives the same tasks."""
    check_packed(rows, 150)


@pytest.mark.parametrize("kind", FULL_DISKS)
def test_no_room_for_an_index(rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """On a full disk a file opens without its index; a .gz is refused, and no incomplete copy stays."""
    packed = tmp_path / "packed.jsonl.gz"
    packed.write_bytes(gzip.compress(rows.read_bytes()))
    undisturbed, unpacked = tasks_of(rows), tasks_of(packed)
    with FULL_DISKS[kind](tmp_path / "full", 0) as disk:
        monkeypatch.setenv("ARC_BENCH_CACHE", str(disk / "cache"))
        assert tasks_of(rows) == undisturbed
        with pytest.raises(DataError, match=r"File too large|No space left"):
            tasks_of(packed)
        assert [p for p in (disk / "cache").rglob("*") if p.is_file()] == []
    monkeypatch.setenv("ARC_BENCH_CACHE", str(tmp_path / "roomy"))
    assert (tasks_of(rows), tasks_of(packed)) == (undisturbed, unpacked)
    count_cases(2)

"""The folder of a pool: written at once or not at all, and every kind of damage is told with its place."""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.candidates.pool_folder import PoolFolder, is_pool
from harness.candidates.pool_schema import CandidateRecord, PoolManifest, Proposal
from harness.core.errors import DataError, RunError
from harness.runs.checked_json import write_record
from tests.support.runs.pools import pool_member

MEMBERS = [pool_member({}, name="a", digest="1").record, pool_member({}, name="b", digest="2").record]


def manifest(**changes: object) -> PoolManifest:
    fields: dict[str, object] = {
        "format": 1,
        "kind": "pool",
        "members": MEMBERS,
        "dataset": "toy/cross#n=2",
        "dataset_digest": "d",
        "task_ids": ["t", "u"],
        "task_digests": ["1", "2"],
        "seed": 0,
        "candidates": 0,
        "candidates_sha256": "",
        "environment": {
            "version": "1", "commit": None, "dirty": None, "python": "3", "packages": {}, "host": "h", "platform": "p"
        },
        "created": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip
    return PoolManifest.model_validate(fields | changes)


def candidate(cell: int, *places: tuple[int, int]) -> CandidateRecord:
    """Return a candidate of one cell that these (member, sample) proposed."""
    proposals = [
        Proposal(member=member, view=sample, sample=sample, symmetry="identity", logprob=-1 / 3, mean_logprob=None)
        for member, sample in places
    ]
    return CandidateRecord(task_id="t", test_index=0, grid=[[cell]], proposals=proposals)


CANDIDATES = [candidate(1, (0, 0), (0, 3), (1, 0)), candidate(2, (1, 1)), candidate(3, (1, 7))]


@pytest.fixture
def folder(tmp_path: Path) -> PoolFolder:
    pool = PoolFolder(tmp_path / "pool")
    pool.write(manifest(), CANDIDATES)
    return pool


def read(folder: PoolFolder) -> list[CandidateRecord]:
    return [record for _, record in folder.candidates(folder.manifest())]


def test_what_is_written_is_read(folder: PoolFolder) -> None:
    assert read(folder) == CANDIDATES
    saved = folder.manifest()
    assert saved.candidates == 3
    assert saved == manifest(candidates=3, candidates_sha256=saved.candidates_sha256)
    assert is_pool(folder.path)
    assert sorted(path.name for path in folder.path.parent.iterdir()) == ["pool"]
    assert sorted(path.name for path in folder.path.iterdir()) == ["candidates.jsonl", "manifest.json"]


def test_an_empty_folder_is_filled_and_others_are_not_touched(tmp_path: Path, folder: PoolFolder) -> None:
    (tmp_path / "empty").mkdir()
    PoolFolder(tmp_path / "empty").write(manifest(), CANDIDATES)
    assert read(PoolFolder(tmp_path / "empty")) == CANDIDATES
    before = folder.candidates_path.read_bytes()
    with pytest.raises(RunError, match="exists and is not empty"):
        folder.write(manifest(), [])
    assert folder.candidates_path.read_bytes() == before
    with pytest.raises(RunError, match="is a file"):
        PoolFolder(folder.candidates_path).write(manifest(), [])


def test_a_failure_while_writing_leaves_nothing(tmp_path: Path) -> None:
    def breaking() -> Iterator[CandidateRecord]:
        yield CANDIDATES[0]
        raise OSError(28, "No space left on device")

    with pytest.raises(RunError, match=r"cannot write \(No space left on device\); nothing was written"):
        PoolFolder(tmp_path / "pool").write(manifest(), breaking())
    assert list(tmp_path.iterdir()) == []


def lines_of(folder: PoolFolder, edit: Callable[[list[bytes]], list[bytes]]) -> None:
    lines = folder.candidates_path.read_bytes().splitlines(keepends=True)
    folder.candidates_path.write_bytes(b"".join(edit(lines)))


def checked(line: bytes, **changes: object) -> bytes:
    """Return a line with other fields and a checksum that matches them."""
    fields = orjson.loads(line) | changes
    fields.pop("check")
    content = orjson.dumps(fields)
    return content[:-1] + b',"check":"%08x"}\n' % zlib.crc32(content)


def proposal(**changes: object) -> dict[str, object]:
    return {**CANDIDATES[1].proposals[0].model_dump(), **changes}


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda lines: [lines[0], lines[1].replace(b"[[2]]", b"[[4]]"), lines[2]], "line 2, check: the line does"),
        (lambda lines: [lines[0], lines[1][:40] + b"\n", lines[2]], r"line 2: not JSON \(.*make the pool again"),
        (lambda lines: [lines[0], b"[]\n", lines[2]], "line 2: expected an object with a checksum"),
        (lambda lines: [lines[0], lines[1].replace(b'"check"', b'"c"'), lines[2]], "line 2: expected an object"),
        (lambda lines: [*lines[:2], lines[2][:-9]], "line 3: not JSON"),
        (lambda lines: lines[:2], "2 candidates, where the manifest has 3"),
        (lambda lines: [lines[1], lines[0], lines[2]], "was changed since the pool was made"),
        (lambda lines: [*lines[:2], checked(lines[2], test_index=-1)], "line 3, test_index: "),
        (lambda lines: [*lines[:2], checked(lines[2], proposals=[])], "line 3, proposals: "),
        (lambda lines: [*lines[:2], checked(lines[2], proposals=[proposal(member=2)])], "line 3: member 2 of 2"),
        (lambda lines: [*lines[:2], checked(lines[2], proposals=[proposal(view=8)])], "line 3: view 8 of member 1"),
        (lambda lines: [*lines[:2], checked(lines[2], proposals=[proposal()] * 2)], "line 3: a sample of a memb"),
    ],
)  # fmt: skip
def test_damage_is_told_with_its_line(
    folder: PoolFolder, edit: Callable[[list[bytes]], list[bytes]], message: str
) -> None:
    lines_of(folder, edit)
    with pytest.raises(DataError, match=rf"^{re.escape(str(folder.candidates_path))}(, |: ){message}"):
        read(folder)


def test_a_changed_or_missing_file_is_told(folder: PoolFolder) -> None:
    content = folder.manifest_path.read_bytes()
    folder.manifest_path.write_bytes(content.replace(b'"seed": 0', b'"seed": 1', 1))
    with pytest.raises(RunError, match="does not fit its checksum"):
        folder.manifest()
    folder.manifest_path.write_bytes(content)
    folder.candidates_path.unlink()
    with pytest.raises(RunError, match=r"candidates.jsonl: cannot be read \(No such file"):
        read(folder)
    folder.manifest_path.unlink()
    with pytest.raises(RunError, match=r"manifest.json is missing: .* is not a pool"):
        folder.manifest()
    assert not is_pool(folder.path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"members": [MEMBERS[0], MEMBERS[1].model_copy(update={"name": "a"})]}, "two have the same name"),
        ({"members": [MEMBERS[0], MEMBERS[1].model_copy(update={"digest": "1"})]}, "two have the same digest"),
        ({"members": []}, "members: "),
        ({"task_ids": ["t"]}, "2 task_digests for 1 task_ids"),
    ],
)
def test_a_contradictory_manifest_is_refused(folder: PoolFolder, changes: dict[str, object], message: str) -> None:
    write_record(folder.manifest_path, folder.manifest().model_copy(update=changes))
    with pytest.raises(RunError, match=message):
        folder.manifest()


@given(st.data())
def test_a_changed_byte_is_found(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    pool = PoolFolder(tmp_path_factory.mktemp("pools") / "pool")
    pool.write(manifest(), CANDIDATES)
    before = pool.manifest()
    path = data.draw(st.sampled_from([pool.candidates_path, pool.manifest_path]))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] = data.draw(st.integers(0, 255).filter(lambda byte: byte != content[place]))
    path.write_bytes(content)
    try:
        changed = pool.manifest()
    except RunError:
        return
    if path == pool.manifest_path:  # white space only
        assert changed == before
        return
    with pytest.raises(DataError, match=r"candidates.jsonl(, line [123]|: )"):
        read(pool)

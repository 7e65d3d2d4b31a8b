"""rescores.jsonl: what is written is read back, whatever a crash or an editor did to the file."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.candidates.rescore_log import RescoreLog, check_scorer_hashes
from harness.candidates.rescores import RescoreHeader, RescoreRecord, Rescores, read_rescores
from harness.core.errors import DataError, RunError
from harness.core.grid import Grid
from harness.runs.logs.checked_lines import encode_line
from tests.support.runs.rescores import rescore_record

HEADER = RescoreHeader(run="data", seed=3, views=2, predictions_sha256="abc")
GRIDS = [Grid(1, 2, bytes((1, 2))), Grid(2, 1, bytes((1, 2))), Grid(1, 1, bytes((9,)))]
RECORDS = [
    rescore_record(scorer, task, index, grid, view, None if (grid, view) == (GRIDS[2], 1) else -0.1 * view - number)
    for number, grid in enumerate(GRIDS)
    for scorer in ("base", "cross")
    for task, index in (("t", 0), ("t", 1), ("u", 0))
    for view in range(2)
]


def write(path: Path, records: list[RescoreRecord]) -> None:
    log = RescoreLog(path, HEADER, {})
    for record in records:
        log.append(record)
    log.close()


def content(rescores: Rescores) -> dict[object, float | None]:
    """Return every line by its key."""
    return {
        (scorer, *output, grid, view): value
        for scorer, lines in rescores.scorers.items()
        for output, grids in lines.by_output.items()
        for grid, by_view in grids.items()
        for view, value in by_view.items()
    }


def expected(records: list[RescoreRecord]) -> dict[object, float | None]:
    return {(r.scorer, r.task_id, r.test_index, Grid.from_rows(r.grid), r.view): r.logprob for r in records}


def read(path: Path) -> Rescores:
    rescores = read_rescores(path)
    assert rescores is not None
    return rescores


def test_lines_are_read_back_and_only_complete_candidates_are_given(tmp_path: Path) -> None:
    path = tmp_path / "rescores.jsonl"
    write(path, RECORDS[:-1])  # the last candidate of one output lacks a view
    rescores = read(path)
    assert rescores.header == HEADER
    assert content(rescores) == expected(RECORDS[:-1])
    assert rescores.of("base", "t", 1) == {GRIDS[0]: (0.0, -0.1), GRIDS[1]: (-1.0, -1.1)}
    assert rescores.failed("base", "t", 1) == {GRIDS[2]}
    assert rescores.failed("cross", "u", 0) == set(), "a view that is missing is no failure"
    assert rescores.of("nobody", "t", 0) == {}
    assert path.read_bytes().startswith(b'{"format":1,"kind":"rescores","run":"data","seed":3,"views":2,')


@given(st.permutations(RECORDS), st.data())
def test_a_torn_tail_loses_only_what_it_tore(records: list[RescoreRecord], data: st.DataObject) -> None:
    """Cut the file anywhere: the complete lines are read, and writing the rest gives the whole content again."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "rescores.jsonl"
        write(path, records)
        whole = path.read_bytes()
        kept = whole[: data.draw(st.integers(0, len(whole)), label="bytes kept")]
        path.write_bytes(kept)
        lines = kept.count(b"\n")
        before = read_rescores(path)
        assert (before is None) == (lines == 0)
        if before is not None:
            assert content(before) == expected(records[: lines - 1])
        log = RescoreLog(path, HEADER, {})
        for record in records:
            key = (record.scorer, record.task_id, record.test_index, Grid.from_rows(record.grid), record.view)
            if not log.rescores.has(key):
                log.append(record)
        log.close()
        assert path.read_bytes() == whole


@given(st.integers(0, len(RECORDS)), st.data())
def test_a_changed_byte_is_found(number: int, data: st.DataObject) -> None:
    """Replace one byte of one line: the file is refused with the number of the line, unless the content is the same."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "rescores.jsonl"
        write(path, RECORDS)
        lines = path.read_bytes().splitlines(keepends=True)
        line = bytearray(lines[number])
        at = data.draw(st.integers(0, len(line) - 2), label="position")
        line[at] = data.draw(st.integers(32, 126).filter(lambda byte: byte != line[at]), label="byte")
        path.write_bytes(b"".join([*lines[:number], bytes(line), *lines[number + 1 :]]))
        with pytest.raises(DataError, match=rf"rescores.jsonl, line {number + 1}\b"):
            read_rescores(path)


def test_a_line_of_another_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rescores.jsonl"
    write(path, RECORDS[:1])
    for line, message in (
        (b"{}\n", "line 3: expected an object with a checksum"),
        (b"[1]\n", "line 3: expected an object with a checksum"),
        (encode_line(RECORDS[0]), "line 3: base, task t, test 0, view 0 of this grid has a line before"),
        (encode_line(RECORDS[1].model_copy(update={"view": 2})), "line 3, view: 2 is not one of the 2 views"),
        (encode_line(RECORDS[1].model_copy(update={"scorer_hash": "x"})), "line 3, scorer_hash: base has other weig"),
        (encode_line(RECORDS[1].model_copy(update={"grid": [[1], [2, 3]]})), "line 3, grid, row 1: 2 cells"),
        (encode_line(RECORDS[1].model_copy(update={"logprob": 0.5})), "line 3, logprob: Input should be less than"),
        (encode_line(RECORDS[1].model_copy(update={"logprob": None})), "line 3, content: Value error, logprob: a"),
        (encode_line(RECORDS[1].model_copy(update={"logprob": float("nan")})), "line 3, content: Value error, logprob"),
    ):
        start = path.read_bytes()
        path.write_bytes(start + line)
        with pytest.raises(DataError) as caught:
            read_rescores(path)
        assert message in str(caught.value)
        path.write_bytes(start)


def test_a_file_of_other_predictions_is_not_continued(tmp_path: Path) -> None:
    path = tmp_path / "rescores.jsonl"
    write(path, RECORDS[:2])
    before = path.read_bytes()
    for change, message in (
        ({"predictions_sha256": "xyz"}, "other predictions (predictions_sha256 abc, now xyz): move rescores.jsonl"),
        ({"run": "other"}, "another dataset (run data, now other)"),
        ({"seed": 4}, "another seed (seed 3, now 4)"),
        ({"views": 4}, "was begun with 2 views, not 4: give --views 2, or move"),
    ):
        with pytest.raises(RunError) as caught:
            RescoreLog(path, HEADER.model_copy(update=change), {})
        assert message in str(caught.value)
    assert path.read_bytes() == before


def test_other_weights_under_a_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rescores.jsonl"
    write(path, RECORDS[:2])
    check_scorer_hashes(path, read(path), {"base": "hash of base", "another": "x"})
    with pytest.raises(RunError, match=r"base scored with other weights \(hash of base\) .* \(x\): serve those, name"):
        check_scorer_hashes(path, read(path), {"base": "x"})


def test_top_is_kept_for_each_scorer(tmp_path: Path) -> None:
    path = tmp_path / "rescores.jsonl"
    write(path, RECORDS)
    lines = path.read_bytes().splitlines()[1:]
    for top, saved in (
        ({"base": 4}, {"base": 4}),
        ({"cross": 2}, {"base": 4, "cross": 2}),
        ({"base": None}, {"cross": 2}),
    ):
        RescoreLog(path, HEADER, top).close()
        assert read(path).header.top == saved
        assert path.read_bytes().splitlines()[1:] == lines
    RescoreLog(path, HEADER, {"cross": None}).close()
    assert b"top" not in path.read_bytes().splitlines()[0]


def test_a_line_checks_its_own_content() -> None:
    line = orjson.loads(encode_line(RECORDS[0]))
    assert list(line) == [
        "scorer", "scorer_hash", "task_id", "test_index", "grid", "view", "logprob", "n_tokens", "check",
    ]  # fmt: skip

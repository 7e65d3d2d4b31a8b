"""The run folder: nothing that was committed is ever lost, nothing is written twice, nobody writes beside another."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.answers import run_answers
from harness.datasets import open_dataset
from harness.errors import DataError, RunError
from harness.grid import Grid
from harness.predictions import PredictionLog, drop_errors
from harness.records import PredictionRecord
from harness.runs import RunFolder, config_changes
from tests.conftest import manifest, record

TASK = open_dataset("toy/copy#n=1").task(0)


def line(sample: int) -> PredictionRecord:
    return record("base", TASK, 0, sample, Grid(1, 2, bytes((1, 2))))


def written(path: Path, count: int) -> bytes:
    log = PredictionLog(path)
    for sample in range(count):
        log.append(line(sample))
    log.close()
    return path.read_bytes()


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The system refuses to let any file grow beyond ``size`` bytes, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@given(cut=st.floats(0, 1))
def test_a_file_cut_anywhere_keeps_its_whole_lines(cut: float, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("cut") / "predictions.jsonl"
    data = written(path, 3)
    torn = data[: round(cut * len(data))]
    path.write_bytes(torn)
    log = PredictionLog(path)
    whole = torn.count(b"\n")
    assert [answer.sample for answer in run_answers(path)] == list(range(whole))
    for sample in range(whole, 3):
        log.append(line(sample))
    log.close()
    assert path.read_bytes() == data


def test_what_was_appended_is_read_back(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    written(folder.predictions_path, 4)
    assert list(folder.predictions()) == [line(sample) for sample in range(4)]


def test_a_full_disk_loses_nothing_and_keeps_what_fits(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    before = written(path, 2)
    log = PredictionLog(path)
    for sample in range(2, 5):
        log.append(line(sample))
    with largest_file(len(before) + 100), pytest.raises(RunError, match=r"3 predictions are not saved.*--resume"):
        log.commit()
    assert path.read_bytes() == before
    room = len(before) + len(before) // 2 + 10
    with largest_file(room), pytest.raises(RunError, match=r"last 2 predictions are not saved"):
        log.commit()  # What fits is kept.
    assert [answer.sample for answer in run_answers(path)] == list(range(3))
    log.append(line(5))
    log.close()  # There is room again: what had been appended is still there to be written.
    assert [answer.sample for answer in run_answers(path)] == list(range(6))


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    lines = written(path, 3).splitlines(keepends=True)
    path.write_bytes(lines[0] + b"{}\n" + lines[2])
    with pytest.raises(DataError, match="line 2"):
        list(run_answers(path))
    with pytest.raises(RunError, match="line 2"):
        list(RunFolder(tmp_path).predictions())


def test_a_folder_in_use_is_refused_and_freed_when_its_process_dies(tmp_path: Path) -> None:
    holder = (
        "import sys; from pathlib import Path; from harness.runs import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).locked():\n    print('held', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(RunError, match=f"process {process.pid} is writing"), RunFolder(tmp_path).locked():
            pass
        process.kill()
    with RunFolder(tmp_path).locked():
        pass


def test_an_existing_run_is_refused_without_resume(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.check_free(resume=False)
    with folder.locked():
        folder.check_free(resume=False)  # Begun and killed before the manifest was written: nothing is in the way.
        folder.begin(manifest("toy/copy#n=2", ["base"], 2), resume=False)
    with pytest.raises(RunError, match="--resume completes it"):
        folder.check_free(resume=False)
    folder.check_free(resume=True)


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, resume: bool) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError):
        RunFolder(tmp_path).check_free(resume)
    with pytest.raises(RunError, match="is a file"):
        RunFolder(tmp_path / "thesis.tex").check_free(resume)


def test_resuming_keeps_the_history_and_names_what_changed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    first = manifest("toy/copy#n=2", ["base"], 2)
    folder.begin(first, resume=False)
    again = folder.begin(first.model_copy(update={"started": "later"}), resume=True)
    assert (again.started, again.resumed) == (first.started, ["later"])
    assert folder.manifest() == again
    other = manifest("toy/copy#n=2", ["base"], 4, seed=1)
    with pytest.raises(RunError, match="n: 2 -> 4; seed: 0 -> 1"):
        folder.begin(other, resume=True)
    assert folder.manifest() == again


def test_changes_of_a_model_are_named_by_the_model() -> None:
    old = manifest("toy/copy#n=2", ["base", "cross"], 2).config
    changed = old.models[1].model_copy(update={"hash": "abc"})
    new = old.model_copy(update={"models": [old.models[0], changed]})
    assert config_changes(old, new) == ['cross\'s hash: null -> "abc"']
    assert config_changes(old, old) == []


def test_a_missing_or_broken_manifest_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"manifest.json is missing"):
        RunFolder(tmp_path).manifest()
    (tmp_path / "manifest.json").write_text('{"format": 2}')
    with pytest.raises(RunError, match=r"manifest\.json: format"):
        RunFolder(tmp_path).manifest()


def test_predictions_that_were_given_up_are_dropped_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    log = PredictionLog(path)
    for sample in range(6):
        outcome = "error" if sample % 2 else "grid"
        grid = None if sample % 2 else Grid(1, 2, bytes((1, 2)))
        log.append(record("base", TASK, 0, sample, grid, outcome).model_copy(update={"text": 'says "error"'}))
    log.close()
    before = path.read_bytes()
    with largest_file(100), pytest.raises(RunError, match="as it was"):
        drop_errors(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["predictions.jsonl"]
    assert drop_errors(path) == 3
    assert path.read_bytes() == b"".join(before.splitlines(keepends=True)[::2])
    assert drop_errors(path) == 0
    assert drop_errors(tmp_path / "missing.jsonl") == 0

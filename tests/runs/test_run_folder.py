"""Run folders: appended predictions, resuming, locks, and errors for invalid files."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.core.errors import DataError, RunError
from harness.core.grid import Grid
from harness.data.spec import open_dataset
from harness.runs.folder import RunFolder, config_changes
from harness.runs.logs.prediction_log import PredictionLog, drop_retryable
from harness.runs.logs.prediction_reader import read_predictions
from harness.runs.schemas.prediction_schema import PredictionRecord
from tests.support.runs.run_folders import append_record, load_records, prediction_record, run_manifest

TASK = open_dataset("toy/copy#n=1").task(0)


def example(sample: int) -> PredictionRecord:
    return prediction_record("base", TASK, 0, sample, Grid(1, 2, bytes((1, 2))))


def write_predictions(path: Path, count: int) -> bytes:
    log = PredictionLog(path)
    for sample in range(count):
        append_record(log, example(sample))
    log.close()
    return path.read_bytes()


def test_appended_predictions_are_read_back(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    write_predictions(folder.predictions_path, 4)
    assert load_records(tmp_path) == [example(sample) for sample in range(4)]


def test_the_error_of_an_invalid_line_names_it(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    lines = write_predictions(path, 3).splitlines(keepends=True)
    path.write_bytes(lines[0] + b"{}\n" + lines[2])
    with pytest.raises(DataError, match="line 2"):
        list(read_predictions(path))


def test_an_existing_run_is_refused_without_resume(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.check_free(resume=False)
    with folder.locked():
        folder.check_free(resume=False)  # A run that was killed before it wrote its manifest does not prevent another.
        folder.start_run(run_manifest("toy/copy#n=2", ["base"], 2), resume=False)
    with pytest.raises(RunError, match="--resume completes it"):
        folder.check_free(resume=False)
    folder.check_free(resume=True)


@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_that_holds_no_run_is_refused(tmp_path: Path, resume: bool) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError):
        RunFolder(tmp_path).check_free(resume)
    with pytest.raises(RunError, match="is a file"):
        RunFolder(tmp_path / "thesis.tex").check_free(resume)


@pytest.mark.parametrize("name", ["file/run", "blocked"])
def test_a_folder_that_cannot_be_written_to_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "blocked" / ".lock").mkdir(parents=True)
    with (
        pytest.raises(RunError, match=f"{name}: cannot write to this folder"),
        RunFolder(tmp_path / name).locked(),
    ):
        raise AssertionError


def test_resuming_keeps_the_history_and_names_changed_options(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    first = run_manifest("toy/copy#n=2", ["base"], 2)
    folder.start_run(first, resume=False)
    again = folder.start_run(first.model_copy(update={"started": "later"}), resume=True)
    assert (again.started, again.resumed) == (first.started, ["later"])
    assert folder.manifest() == again
    other = run_manifest("toy/copy#n=2", ["base"], 4, seed=1)
    with pytest.raises(RunError, match="n: 2 -> 4; seed: 0 -> 1"):
        folder.start_run(other, resume=True)
    assert folder.manifest() == again


def test_changed_options_of_a_model_are_named_with_the_model() -> None:
    old = run_manifest("toy/copy#n=2", ["base", "cross"], 2).config
    changed = old.models[1].model_copy(update={"hash": "abc"})
    new = old.model_copy(update={"models": [old.models[0], changed]})
    assert config_changes(old, new) == ['cross\'s hash: null -> "abc"']
    assert config_changes(old, old) == []


def test_a_missing_or_invalid_manifest_is_reported(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"manifest.json is missing"):
        RunFolder(tmp_path).manifest()
    (tmp_path / "manifest.json").write_text('{"format": 2}')
    with pytest.raises(RunError, match=r"manifest\.json: format"):
        RunFolder(tmp_path).manifest()


def test_a_changed_manifest_is_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_manifest(run_manifest("toy/copy#n=2", ["base"], 2))
    text = folder.manifest_path.read_text()
    folder.manifest_path.write_text(text.replace('"seed": 0', '"seed": 1'))
    with pytest.raises(RunError, match="does not fit its checksum"):
        folder.manifest()
    folder.manifest_path.write_text(text)
    assert folder.manifest().config.seed == 0


@pytest.mark.parametrize("finished", [None, "2026-01-01T00:00:00+00:00"])
def test_predictions_changed_after_the_end_of_a_run_are_refused(tmp_path: Path, finished: str | None) -> None:
    """Those of an unfinished run may have grown since its manifest was written."""
    folder = RunFolder(tmp_path)
    write_predictions(folder.predictions_path, 2)
    update = {"finished": finished, "predictions_sha256": folder.predictions_sha256()}
    saved = run_manifest("toy/copy#n=2", ["base"], 2).model_copy(update=update)
    folder.check_predictions(saved)
    write_predictions(folder.predictions_path, 1)
    if finished is None:
        folder.check_predictions(saved)
    else:
        with pytest.raises(RunError, match="was changed since the run finished"):
            folder.check_predictions(saved)


def test_opening_a_log_removes_an_incomplete_last_line(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    complete = write_predictions(path, 2)
    path.write_bytes(complete + complete[:20])
    assert write_predictions(path, 0) == complete


def test_predictions_to_be_retried_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    log = PredictionLog(path)
    for sample, outcome in enumerate(("unparsed", "error", "refused", "truncated")):
        append_record(log, prediction_record("base", TASK, 0, sample, None, outcome))
    log.close()
    assert drop_retryable(path) == 2
    assert [prediction.outcome for prediction in read_predictions(path)] == ["unparsed", "truncated"]

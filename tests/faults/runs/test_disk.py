"""Full disks: a limit on the size of files, and a small disk."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from harness.core.errors import RunError
from harness.core.grid import Grid
from harness.data.spec import open_dataset
from harness.runs.logs.prediction_log import PredictionLog, drop_retryable
from harness.runs.logs.prediction_reader import read_predictions
from harness.runs.schemas.prediction_schema import PredictionRecord
from tests.faults.damage import read_by, run_bench
from tests.faults.disks import FULL_DISKS, limit_file_size, small_disk
from tests.support.runs.run_folders import append_record, prediction_record
from tests.support.runs.sampling_runs import (
    assert_same_run,
    bench_run_command,
    predictions_without_times,
    run_options,
    run_sampling,
    uninterrupted_run,
)
from tests.support.servers.chat_answers import mixed_answer
from tests.support.servers.chat_server import ChatServer

TASK = open_dataset("toy/copy#n=1").task(0)
KINDS = pytest.mark.parametrize("kind", FULL_DISKS)


def line(sample: int, outcome: str = "grid") -> PredictionRecord:
    """Return a line of a prediction log."""
    return prediction_record("base", TASK, 0, sample, Grid(1, 2, bytes((1, 2))) if outcome == "grid" else None, outcome)


def written(path: Path, lines: list[PredictionRecord]) -> bytes:
    """Return whether a log holds exactly these lines."""
    log = PredictionLog(path)
    for own in lines:
        append_record(log, own)
    log.close()
    return path.read_bytes()


def test_predictions_are_kept_in_memory_while_the_disk_is_full(tmp_path: Path) -> None:
    """Predictions that fit are on disk, the others stay in memory, and none is lost when there is room again."""
    path = tmp_path / "predictions.jsonl"
    before = written(path, [line(0), line(1)])
    log = PredictionLog(path)
    for own in range(2, 5):
        append_record(log, line(own))
    with limit_file_size(len(before) + 100), pytest.raises(RunError, match=r"3 predictions are not saved.*--resume"):
        log.commit()
    assert path.read_bytes() == before
    room = len(before) + len(before) // 2 + 10
    with limit_file_size(room), pytest.raises(RunError, match=r"last 2 predictions are not saved"):
        log.commit()
    assert [answer.sample for answer in read_predictions(path)] == list(range(3))
    append_record(log, line(5))
    log.close()
    assert [answer.sample for answer in read_predictions(path)] == list(range(6))


def test_errors_are_not_dropped_while_the_disk_is_full(tmp_path: Path) -> None:
    """--retry-errors on a full disk leaves the predictions unchanged."""
    path = tmp_path / "predictions.jsonl"
    records = [line(i, "error" if i % 2 else "grid").model_copy(update={"text": 'says "error"'}) for i in range(6)]
    before = written(path, records)
    with limit_file_size(100), pytest.raises(RunError, match="as it was"):
        drop_retryable(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["predictions.jsonl"]
    assert drop_retryable(path) == 3
    assert path.read_bytes() == b"".join(before.splitlines(keepends=True)[::2])
    assert drop_retryable(path) == 0
    assert drop_retryable(tmp_path / "missing.jsonl") == 0


@KINDS
@pytest.mark.parametrize("free", [0, 4096, 8192, 12288])
def test_sampling_without_room(tmp_path: Path, undisturbed: Path, kind: str, free: int) -> None:
    """A run on a disk that fills up ends with an ArcBenchError and complete lines; resumed with room, it equals an
    undisturbed run.
    """
    with ChatServer(mixed_answer) as server:
        with FULL_DISKS[kind](tmp_path / "full", free) as disk:
            with pytest.raises(RunError, match=r"cannot write \((File too large|No space left on device)\)"):
                run_sampling(run_options(server, disk / "run"))
            shutil.copytree(disk / "run", tmp_path / "run")
        saved = b"".join(path.read_bytes() for path in (tmp_path / "run").glob("predictions.jsonl"))
        assert saved.endswith(b"\n") or not saved
        assert run_sampling(run_options(server, tmp_path / "run", resume=True)).sampled == 40 - saved.count(b"\n")
    assert predictions_without_times(tmp_path / "run") == predictions_without_times(undisturbed)


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory, undisturbed: Path) -> Path:
    """Return a run with its results."""
    run = tmp_path_factory.mktemp("scored") / "run"
    shutil.copytree(undisturbed, run)
    assert run_bench("score", run)[0] == 0
    return run


@KINDS
@pytest.mark.parametrize("reader", ["score", "submit", pytest.param("report", marks=pytest.mark.slow)])
def test_writing_results_without_room(tmp_path: Path, scored: Path, kind: str, reader: str) -> None:
    """bench score, submit and report on a full disk end with an ArcBenchError, leave existing files unchanged and no
    incomplete ones.
    """
    into = tmp_path / "full"
    with FULL_DISKS[kind](into, 0 if kind == "disk" else 100) as disk:
        target = disk / {"report": "report.md", "submit": "submission.json", "score": "run/results.json"}[reader]
        target.parent.mkdir(exist_ok=True)
        target.touch()
        run = scored
        if reader == "score":
            run = disk / "run"
            for name in ("manifest.json", "predictions.jsonl"):
                (run / name).symlink_to(scored / name)
        status, _, err = read_by(reader, run, disk)
        assert (status, err.startswith("error: "), target.read_bytes()) == (1, True, b""), err
        assert [p.name for p in target.parent.iterdir() if p.name.startswith(".tmp-")] == []


@pytest.mark.slow
def test_bench_run_without_room(tmp_path: Path) -> None:
    """bench run on a full disk says what to do, without a traceback; resumed, it equals an undisturbed run."""
    whole = uninterrupted_run(tmp_path / "undisturbed")
    with ChatServer(mixed_answer, seconds=0.03) as server:
        with small_disk(tmp_path / "full", 16384) as disk:
            full = subprocess.run(
                bench_run_command(server.url, disk / "run"), capture_output=True, text=True, check=False
            )
            shutil.copytree(disk / "run", tmp_path / "run")
        assert full.returncode == 1
        assert "cannot write (" in full.stderr
        assert "Make room and repeat the command with --resume" in full.stderr
        assert "Traceback" not in full.stderr
        saved = (tmp_path / "run" / "predictions.jsonl").read_bytes()
        assert saved.endswith(b"\n")
        saved_count = saved.count(b"\n")
        done = subprocess.run(
            bench_run_command(server.url, tmp_path / "run", "--resume"), capture_output=True, text=True, check=True
        )
    assert f"{64 - saved_count} predictions in" in done.stderr
    assert_same_run(tmp_path / "run", whole)

"""``bench run --deadline`` as a command: exit statuses, what is printed, kill -9, Ctrl-C, and resuming."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from harness.runs.folder import RunFolder
from tests.support.commands import run_bench, wait_until
from tests.support.runs.cut_runs import answer_again, hang_after
from tests.support.runs.sampling_runs import (
    PLANNED,
    assert_same_run,
    bench_run_command,
    predictions_without_times,
    uninterrupted_run,
)
from tests.support.servers.chat_answers import mixed_answer
from tests.support.servers.chat_server import ChatServer


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run without a deadline."""
    return uninterrupted_run(tmp_path_factory.mktemp("whole") / "run")


class Bench:
    """Runs commands in this process, where they start at once."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys, self._monkeypatch = capsys, monkeypatch

    def __call__(self, *words: str, status: int = 0) -> tuple[str, str]:
        """Run a command, check its exit status, and return its standard output and error."""
        self._monkeypatch.setattr(sys, "argv", ["bench", *words])
        returned, out, err = run_bench(self._capsys, *words)
        assert returned == status, err
        return out, err


@pytest.fixture
def bench(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(capsys, monkeypatch)


def run_words(url: str, out: Path, *more: str) -> list[str]:
    """Return the words of `bench_run_command` after ``bench``."""
    return bench_run_command(url, out, *more)[3:]


def resume_words(text: str) -> list[str]:
    """Return the words after ``bench`` of the command that asks for what is missing."""
    line = next(line for line in text.splitlines() if "missing by the deadline: " in line)
    words = shlex.split(line.partition("to ask for them: ")[2])
    assert words[0] == "bench"
    return words[1:]


def saved_count(run: Path) -> int:
    path = run / "predictions.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_a_cut_run_is_scored_and_told_how_to_complete(bench: Bench, tmp_path: Path, whole: Path) -> None:
    run = tmp_path / "run"
    with ChatServer(mixed_answer) as server:
        hang_after(server, 40)
        out, err = bench(*run_words(server.url, run, "--deadline", "12s"))
        assert saved_count(run) == 40
        assert f"missing by the deadline: 24 of {PLANNED} predictions; to ask for them: bench run " in err
        assert "base: missing by the deadline: " in out
        models = orjson.loads((run / "results.json").read_bytes())["models"]
        assert sum(model["deadline"]["missing"] for model in models.values()) == 24
        assert all("missing" not in model["failures"] for model in models.values())
        answer_again(server)
        words = resume_words(err)
        assert "--deadline" not in words
        assert words[-1] == "--resume"
        bench(*words)
    assert_same_run(run, whole)
    assert "deadline" not in orjson.loads((run / "results.json").read_bytes())["models"]["base"]


def test_a_run_without_an_answer_fails(bench: Bench, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with ChatServer(mixed_answer) as server:
        hang_after(server, 0)
        _, err = bench(*run_words(server.url, run, "--deadline", "10s"), status=1)
    assert f"missing by the deadline: {PLANNED} of {PLANNED} predictions" in err
    assert "error: nothing was answered before the deadline (--deadline)" in err
    assert RunFolder(run).manifest().cut_by is not None
    submission = tmp_path / "submission.json"
    bench("submit", f"{run}@base", "-o", str(submission))
    assert len(orjson.loads(submission.read_bytes())) == 8


def test_kill_cut_and_resume_give_the_same_run(bench: Bench, tmp_path: Path, whole: Path) -> None:
    run = tmp_path / "run"
    with ChatServer(mixed_answer, seconds=0.05) as server:
        command = bench_run_command(server.url, run, "--deadline", "1h")
        child = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        wait_until(lambda: saved_count(run) >= 8)
        child.kill()
        child.wait()
        manifest = RunFolder(run).manifest()
        assert manifest.deadline is not None
        assert (manifest.deadline.seconds, manifest.cut_by) == (3600, None)
        hang_after(server, 20)
        _, err = bench(*run_words(server.url, run, "--resume", "--deadline", "12s"))
        cut = RunFolder(run).manifest().cut_by
        assert cut is not None
        assert (cut.seconds, sum(cut.missing.values())) == (12, PLANNED - saved_count(run))
        assert f"missing by the deadline: {PLANNED - saved_count(run)} of {PLANNED} predictions" in err
        answer_again(server)
        bench(*run_words(server.url, run, "--resume"))
    assert_same_run(run, whole)


def test_a_run_that_the_user_ends_is_not_cut_by_its_deadline(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with ChatServer(mixed_answer) as server:
        hang_after(server, 12)
        command = bench_run_command(server.url, run, "--deadline", "1h")
        child = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        wait_until(lambda: saved_count(run) >= 12)
        child.send_signal(signal.SIGINT)
        wait_until(lambda: "stopping: " in (child.stderr.readline() if child.stderr else ""))
        child.send_signal(signal.SIGINT)
        assert child.wait(60) == 130
    manifest = RunFolder(run).manifest()
    assert (manifest.finished, manifest.cut_by) == (None, None)
    assert len(predictions_without_times(run)) == 12

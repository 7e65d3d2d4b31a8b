"""A harness process killed at any moment is resumed to exactly what an undisturbed run gives."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.records import PredictionRecord
from harness.runs import RunFolder
from tests.chat_server import ChatServer, moody

pytestmark = pytest.mark.slow

PLANNED = 64


def command(server: ChatServer, out: Path, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "harness.cli", "run", "--server", server.url, "--model", "base", "--model", "cross",
        "--dataset", "toy/copy/evaluation#n=8", "-n", "4", "--out", str(out), "--prompt", "compact-v0",
        "--grid-encoder", "MinimalGridEncoder()", "--max-in-flight", "4", *more,
    ]  # fmt: skip


def stable(run: Path) -> list[PredictionRecord]:
    found = [record.model_copy(update={"seconds": 0.0}) for record in RunFolder(run).predictions()]
    return sorted(found, key=lambda record: record.key)


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    out = tmp_path_factory.mktemp("calm") / "run"
    with ChatServer(moody) as server:
        subprocess.run(command(server, out), check=True, capture_output=True)
    return out


def until(condition: Callable[[], bool]) -> None:
    waiter = threading.Event()
    for _ in range(6000):
        if condition():
            return
        waiter.wait(0.005)
    raise AssertionError("the condition did not come true in time")


def check_equal(run: Path, calm: Path) -> None:
    assert stable(run) == stable(calm)
    assert (run / "results.json").read_bytes() == (calm / "results.json").read_bytes()


@pytest.mark.parametrize("moment", [0, 1, 2, 20, 33, 50, 61, 63])
def test_kill_and_resume(tmp_path: Path, calm: Path, moment: int) -> None:
    out = tmp_path / "run"
    with ChatServer(moody, seconds=0.03) as server:
        with subprocess.Popen(command(server, out), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            until(lambda: len(server.bodies) >= moment)
            process.kill()
        saved = (out / "predictions.jsonl").read_bytes().count(b"\n") if out.exists() else 0
        asked = len(server.bodies)
        done = subprocess.run(command(server, out, "--resume"), capture_output=True, text=True, check=True)
        assert len(server.bodies) - asked == PLANNED - saved
    assert f"{PLANNED - saved} predictions in" in done.stderr
    check_equal(out, calm)


def test_the_harness_and_the_server_both_killed(tmp_path: Path, calm: Path) -> None:
    out = tmp_path / "run"
    with ChatServer(moody, seconds=0.03) as server:
        with subprocess.Popen(command(server, out), stderr=subprocess.PIPE) as process:
            until(lambda: len(server.bodies) >= 24)
            server.down()
            until(lambda: (out / "predictions.jsonl").stat().st_size > 0)
            process.kill()
        failed = subprocess.run(command(server, out, "--resume"), capture_output=True, text=True, check=False)
        assert failed.returncode == 1
        assert "error: " in failed.stderr
        assert "Traceback" not in failed.stderr
        server.up()
        subprocess.run(command(server, out, "--resume"), capture_output=True, check=True)
    check_equal(out, calm)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_drains_saves_and_says_how_to_go_on(tmp_path: Path, calm: Path, number: signal.Signals) -> None:
    out = tmp_path / "run"
    with ChatServer(moody, seconds=0.05) as server:
        with subprocess.Popen(
            command(server, out, "--api-key", "secret"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            until(lambda: len(server.bodies) >= 12)
            process.send_signal(number)
            _, said = process.communicate(timeout=30)
        assert process.returncode == 130
        assert "--resume" in said
        assert "secret" not in said
        asked = len(server.bodies)
        assert len(stable(out)) == asked  # What was in flight was waited for and saved.
        assert not (out / "results.json").exists()
        subprocess.run(command(server, out, "--resume"), capture_output=True, check=True)
        assert len(server.bodies) == PLANNED
    check_equal(out, calm)


def test_two_harnesses_cannot_write_one_run(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with (
        ChatServer(moody, seconds=0.5) as server,
        subprocess.Popen(command(server, out), stderr=subprocess.PIPE) as process,
    ):
        until(lambda: len(server.bodies) >= 1)
        second = subprocess.run(command(server, out, "--resume"), capture_output=True, text=True, check=False)
        process.kill()
    assert second.returncode == 1
    assert f"process {process.pid} is writing to this run" in second.stderr

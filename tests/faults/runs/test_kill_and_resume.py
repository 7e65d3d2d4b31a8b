"""A harness process killed at any moment: resumed, its run equals an undisturbed one."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.commands import wait_until
from tests.support.runs.sampling_runs import (
    PLANNED,
    assert_same_run,
    bench_run_command,
    predictions_without_times,
    uninterrupted_run,
)
from tests.support.servers.chat_answers import mixed_answer
from tests.support.servers.chat_server import ChatServer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return uninterrupted_run(tmp_path_factory.mktemp("undisturbed") / "run")


@pytest.mark.parametrize(
    ("moment", "tokens"), [(0, False), (1, False), (20, False), (50, False), (63, False), (1, True), (33, True)]
)
def test_kill_and_resume(tmp_path: Path, undisturbed: Path, moment: int, tokens: bool) -> None:
    """kill -9 of the harness at a chosen moment: the resumed run equals an undisturbed one and requests nothing
    twice.
    """
    out = tmp_path / "run"
    with ChatServer(mixed_answer, seconds=0.03, tokens=tokens) as server:
        with subprocess.Popen(
            bench_run_command(server.url, out), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            wait_until(lambda: len(server.bodies) >= moment)
            process.kill()
        saved = (out / "predictions.jsonl").read_bytes().count(b"\n") if out.exists() else 0
        asked = len(server.bodies)
        resume = ["--resume"] if out.exists() else []
        done = subprocess.run(bench_run_command(server.url, out, *resume), capture_output=True, text=True, check=True)
        assert len(server.bodies) - asked == PLANNED - saved
    assert f"{PLANNED - saved} predictions in" in done.stderr
    assert_same_run(out, undisturbed)


def test_the_harness_and_the_server_both_killed(tmp_path: Path, undisturbed: Path) -> None:
    """Server and harness both killed: a resume fails with an ArcBenchError without a server, and completes the run
    with one.
    """
    out = tmp_path / "run"
    with ChatServer(mixed_answer, seconds=0.03) as server:
        with subprocess.Popen(bench_run_command(server.url, out), stderr=subprocess.PIPE) as process:
            wait_until(lambda: len(server.bodies) >= 24)
            server.stop()
            wait_until(lambda: (out / "predictions.jsonl").stat().st_size > 0)
            process.kill()
        failed = subprocess.run(
            bench_run_command(server.url, out, "--resume"), capture_output=True, text=True, check=False
        )
        assert failed.returncode == 1
        assert "error: " in failed.stderr
        assert "Traceback" not in failed.stderr
        server.start()
        subprocess.run(bench_run_command(server.url, out, "--resume"), capture_output=True, check=True)
    assert_same_run(out, undisturbed)


@pytest.mark.parametrize(
    "numbers", [[signal.SIGINT], [signal.SIGTERM], [signal.SIGINT, signal.SIGTERM], [signal.SIGTERM, signal.SIGTERM]]
)
def test_an_interrupt_waits_for_requests_in_flight_and_says_how_to_resume(
    tmp_path: Path, undisturbed: Path, numbers: list[signal.Signals]
) -> None:
    """SIGINT and SIGTERM, and SIGTERM after either as a parent process passes it on: requests in flight are awaited
    and saved, and the message says how to resume.
    """
    out = tmp_path / "run"
    with ChatServer(mixed_answer, seconds=0.3) as server:
        with subprocess.Popen(
            bench_run_command(server.url, out, "--api-key", "secret"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            wait_until(lambda: len(server.bodies) >= 12)
            for number in numbers:
                process.send_signal(number)
                time.sleep(0.05)
            _, output = process.communicate(timeout=30)
        assert process.returncode == 130
        assert "--resume" in output
        assert "secret" not in output
        asked = len(server.bodies)
        assert len(predictions_without_times(out)) == asked  # What was in flight was waited for and saved.
        assert not (out / "results.json").exists()
        server.seconds = 0.0
        subprocess.run(bench_run_command(server.url, out, "--resume"), capture_output=True, check=True)
        assert len(server.bodies) == PLANNED
    assert_same_run(out, undisturbed)

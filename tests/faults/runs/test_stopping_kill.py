"""A run with early stopping, killed at several moments: resumed, it equals an undisturbed one."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.runs.folder import RunFolder
from tests.support.commands import wait_until
from tests.support.runs.sampling_runs import ambiguous_answer, predictions_without_times
from tests.support.servers.chat_server import ChatServer

pytestmark = pytest.mark.slow

PLANNED = 2 * 10 * 16


def command(server: ChatServer, out: Path, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "harness.cli", "run", "--server", server.url, "--model", "base", "--model", "cross",
        "--dataset", "toy/copy/evaluation#n=10", "-n", "16", "--stop", "risk=0.2", "--out", str(out),
        "--prompt", "compact-v0", "--grid-encoder", "MinimalGridEncoder()", "--max-in-flight", "8", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run without faults."""
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    with ChatServer(ambiguous_answer) as server:
        subprocess.run(command(server, out), check=True, capture_output=True)
    assert 0 < len(predictions_without_times(out)) < PLANNED
    return out


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_session_that_was_ended_is_completed_exactly(
    tmp_path: Path, undisturbed: Path, share: float, end: signal.Signals
) -> None:
    """kill -9 and SIGINT of a run with early stopping: resumed, it requests only what is missing and equals an
    undisturbed run.
    """
    out, complete = tmp_path / "run", len(predictions_without_times(undisturbed))
    with ChatServer(ambiguous_answer, seconds=0.02) as server:
        with subprocess.Popen(command(server, out), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            wait_until(lambda: len(server.bodies) >= share * complete)
            process.send_signal(end)
            process.communicate(timeout=60)
        saved = (out / "predictions.jsonl").read_bytes().count(b"\n")
        assert saved < complete
        asked = len(server.bodies)
        subprocess.run(command(server, out, "--resume"), capture_output=True, check=True)
        assert len(server.bodies) - asked == complete - saved
    assert predictions_without_times(out) == predictions_without_times(undisturbed)
    resumed, expected = (RunFolder(run).results().models for run in (out, undisturbed))
    assert [r.model_dump_json() for r in resumed.values()] == [r.model_dump_json() for r in expected.values()]

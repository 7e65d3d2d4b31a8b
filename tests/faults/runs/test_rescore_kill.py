"""``bench rescore`` killed or interrupted at any moment: the next session completes the file and asks nothing twice."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree

import pytest

from harness.candidates.rescores import RESCORES_FILE
from harness.runs.folder import RunFolder
from tests.support.commands import wait_until
from tests.support.runs.enumerated_runs import enumerating_server, sample_unsure_run
from tests.support.runs.rescored_runs import VIEWS, expected_logprobs, saved_logprobs
from tests.support.servers.chat_server import ChatServer

pytestmark = pytest.mark.slow


def begin(server: ChatServer, run: Path, *more: str) -> subprocess.Popen[str]:
    """Start ``bench rescore``, with few answers in flight."""
    command = [
        sys.executable, "-m", "harness.cli", "rescore", str(run), "--server", server.url, "--views", str(VIEWS),
        "--max-in-flight", "8", *more,
    ]  # fmt: skip
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def complete(server: ChatServer, run: Path) -> None:
    """Run the command to its end, and compare the file with the language model."""
    with begin(server, run) as process:
        output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    expected = expected_logprobs(server.language_model, run)
    assert saved_logprobs(run) == pytest.approx(expected, abs=1e-9)
    assert f"{len(expected)} of {len(expected)} are in {run / RESCORES_FILE}" in output


@pytest.fixture(scope="module")
def sampled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample_unsure_run(tmp_path_factory.mktemp("sampled") / "run")


@pytest.fixture
def run(sampled: Path, tmp_path: Path) -> Path:
    return copytree(sampled, tmp_path / "run")


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with enumerating_server(doubt=0.4, scores=True, seconds=0.05) as running:
        yield running


def kill_after(server: ChatServer, run: Path, moment: int) -> None:
    """Start a session, and kill it once the server was asked for so many answers in all."""
    with begin(server, run) as process:
        wait_until(lambda: len(server.bodies) >= moment or process.poll() is not None)
        process.kill()


def saved_count(run: Path) -> int:
    """Return the number of complete lines after the header."""
    path = run / RESCORES_FILE
    return max(0, path.read_bytes().count(b"\n") - 1) if path.exists() else 0


@pytest.mark.parametrize("moment", [0, 1, 8, 40, 90, 140])
def test_a_killed_session_is_completed_without_asking_twice(run: Path, server: ChatServer, moment: int) -> None:
    """kill -9 of rescoring at a chosen moment: the next session asks for what is not saved and nothing else, and the
    file then has every log-probability once.
    """
    kill_after(server, run, moment)
    saved = saved_count(run)
    asked = len(server.bodies)
    complete(server, run)
    assert len(server.bodies) - asked == len(saved_logprobs(run)) - saved


@pytest.mark.parametrize("cut", [1, 30, 200, 3000])
def test_a_torn_file_is_completed(run: Path, server: ChatServer, cut: int) -> None:
    """rescores.jsonl cut at any byte, as by a power failure: complete lines count, and the rest is asked again."""
    server.seconds = 0.0
    complete(server, run)
    path = run / RESCORES_FILE
    path.write_bytes(path.read_bytes()[:-cut])
    saved, asked = saved_count(run), len(server.bodies)
    complete(server, run)
    assert len(server.bodies) - asked == len(saved_logprobs(run)) - saved > 0


def test_several_kills_give_the_lines_of_an_undisturbed_session(run: Path, server: ChatServer, tmp_path: Path) -> None:
    """kill -9 of rescoring four times: the lines are those of an undisturbed session, in another order."""
    undisturbed = copytree(run, tmp_path / "undisturbed")
    for moment in (10, 30, 60, 100):
        kill_after(server, run, moment)
    complete(server, run)
    complete(server, undisturbed)
    header, *lines = (run / RESCORES_FILE).read_bytes().splitlines()
    expected_header, *expected = (undisturbed / RESCORES_FILE).read_bytes().splitlines()
    assert header == expected_header
    assert sorted(lines) == sorted(expected)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_session_saves_what_was_answered(run: Path, server: ChatServer, number: signal.Signals) -> None:
    """SIGINT and SIGTERM to rescoring: what was in flight is saved, and the message says how to complete it."""
    with begin(server, run) as process:
        wait_until(lambda: len(server.bodies) >= 24)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command completes them" in errors
    assert saved_count(run) == len(server.bodies) > 0
    complete(server, run)


def test_a_folder_that_another_session_writes_to_is_refused(run: Path, server: ChatServer) -> None:
    """A second ``bench rescore`` of the same folder: it is refused, and writes nothing."""
    with RunFolder(run).locked(), begin(server, run) as second:
        _, errors = second.communicate(timeout=60)
    assert second.returncode == 1
    assert "is writing to this run; wait or stop it" in errors
    assert not (run / RESCORES_FILE).exists()

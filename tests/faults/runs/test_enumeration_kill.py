"""``bench run --search dfs`` killed or interrupted at any moment: the resumed run equals an undisturbed one."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest

from harness.runs.folder import RunFolder
from tests.support.commands import wait_until
from tests.support.runs.enumerated_runs import enumerating_server, stable_lines, views
from tests.support.runs.sampling_runs import PLANNED, bench_run_command
from tests.support.servers.chat_server import ChatServer

pytestmark = pytest.mark.slow
SEARCH = ("--search", "dfs", "--min-prob", "0.1", "--max-tokens", "60")


def begin(server: ChatServer, out: Path, *more: str) -> subprocess.Popen[str]:
    """Start ``bench run --search dfs`` with 64 views."""
    command = [*bench_run_command(server.url, out, *SEARCH), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def complete(server: ChatServer, out: Path, *more: str) -> None:
    """Run the command to its end."""
    with begin(server, out, *more) as process:
        _, errors = process.communicate(timeout=120)
    assert len(views(out)) == PLANNED, errors
    assert RunFolder(out).manifest().finished is not None


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    with enumerating_server() as server:
        complete(server, out)
    return out


@pytest.mark.parametrize("moment", [0, 1, 5, 20, 50, 90])
def test_a_killed_enumeration_resumes_with_complete_views(tmp_path: Path, undisturbed: Path, moment: int) -> None:
    """kill -9 of an enumerating harness at a chosen moment: only complete views are kept, and the resumed run equals an
    undisturbed one.
    """
    out = tmp_path / "run"
    with enumerating_server(seconds=0.03) as server:
        with begin(server, out) as process:
            wait_until(lambda: len(server.bodies) >= moment)
            process.kill()
        saved = len(views(out)) if (out / "predictions.jsonl").exists() else 0
        asked = len(server.bodies)
        complete(server, out, *(["--resume"] if out.exists() else []))
        assert server.language_model is not None
        begun = [ids for body in server.bodies[asked:] for ids in body["prompt"]]
        assert sum(not server.language_model.split(ids)[1] for ids in begun) == PLANNED - saved
    assert stable_lines(out) == stable_lines(undisturbed)


@pytest.mark.parametrize("cut", [1, 40, 400, 2000])
def test_an_incomplete_last_view_is_enumerated_again(tmp_path: Path, undisturbed: Path, cut: int) -> None:
    """Views cut at any byte: the resumed run enumerates those that are incomplete, and equals an undisturbed one."""
    out = tmp_path / "run"
    out.mkdir()
    folder, copy = RunFolder(undisturbed), RunFolder(out)
    copy.write_manifest(folder.manifest().model_copy(update={"finished": None}))
    copy.predictions_path.write_bytes(folder.predictions_path.read_bytes()[:-cut])
    saved = len(views(out))
    assert PLANNED - 10 < saved < PLANNED
    with enumerating_server() as server:
        complete(server, out, "--resume")
    assert stable_lines(out) == stable_lines(undisturbed)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_enumeration_completes_the_views_that_it_began(
    tmp_path: Path, undisturbed: Path, number: signal.Signals
) -> None:
    """SIGINT and SIGTERM to an enumerating harness: the views that were begun are completed and saved, and the message
    says how to resume.
    """
    out = tmp_path / "run"
    with enumerating_server(seconds=0.1) as server:
        with begin(server, out) as process:
            wait_until(lambda: len(server.bodies) >= 24)
            process.send_signal(number)
            _, errors = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "views are saved" in errors
        assert "--resume" in errors
        assert server.language_model is not None
        sent = [ids for body in server.bodies for ids in body["prompt"]]
        assert len(views(out)) == sum(not server.language_model.split(ids)[1] for ids in sent) < PLANNED
        server.seconds = 0.0
        complete(server, out, "--resume")
    assert stable_lines(out) == stable_lines(undisturbed)

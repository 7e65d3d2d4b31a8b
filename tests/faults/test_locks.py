"""Two harnesses at one run."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from harness.core.errors import RunError
from harness.runs.folder import RunFolder
from tests.faults.matrix import count
from tests.support.chat_answers import moody
from tests.support.chat_server import ChatServer
from tests.support.kill_toys import command
from tests.support.sampling_toys import options, sample, stable, until

HOLDER = """
import sys
from pathlib import Path
from harness.core.errors import RunError
from harness.runs.folder import RunFolder
try:
    with RunFolder(Path(sys.argv[1])).locked():
        print("held", flush=True)
        sys.stdin.read()
except RunError as error:
    print(error, flush=True)
"""


def holder(run: Path) -> subprocess.Popen[str]:
    """A process that takes a run, if it can, and holds it until it is told or killed."""
    arguments = [sys.executable, "-c", HOLDER, str(run)]
    return subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00" * 50])
def test_a_run_in_use_is_refused_and_freed_when_its_process_dies(tmp_path: Path, content: bytes | None) -> None:
    """A run that another process writes to is refused, which is named where its lock file can still be read; when that
    process is killed the run is free.
    """
    with holder(tmp_path) as process:
        assert said(process) == "held"
        if content is not None:
            (tmp_path / ".lock").write_bytes(content)
        named = f"process {process.pid} is writing" if content is None else "is writing to this run; wait or stop it"
        with pytest.raises(RunError, match=named), RunFolder(tmp_path).locked():
            pass
        process.kill()
    with RunFolder(tmp_path).locked():
        pass


def test_resuming_a_run_in_use(tmp_path: Path, calm: Path) -> None:
    """A resume of a run that another process holds is refused before anything is written or asked."""
    with ChatServer(moody) as server, holder(tmp_path / "run") as process:
        assert said(process) == "held"
        with pytest.raises(RunError, match=f"process {process.pid} is writing"):
            sample(options(server, tmp_path / "run"))
        assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
        assert server.bodies == []
        process.kill()
        process.wait()
        sample(options(server, tmp_path / "run"))
    assert stable(tmp_path / "run") == stable(calm)


@pytest.mark.slow
def test_many_at_once(tmp_path: Path) -> None:
    """Of processes that take one run at the same moment exactly one gets it; all others name it."""
    for turn in range(3):
        with ExitStack() as stack:
            all_ = [stack.enter_context(holder(tmp_path / str(turn))) for _ in range(6)]
            told = [said(process) for process in all_]
            (winner,) = [process for process, text in zip(all_, told, strict=True) if text == "held"]
            others = [text for text in told if text != "held"]
            assert all(f"process {winner.pid} is writing" in text or "process unknown" in text for text in others)
            assert len(others) == 5
            for process in all_:
                process.kill()
        count(5)


@pytest.mark.slow
def test_two_harnesses_cannot_write_one_run(tmp_path: Path) -> None:
    """A second bench run on one run is refused, and told which process writes to it."""
    out = tmp_path / "run"
    with (
        ChatServer(moody, seconds=0.5) as server,
        subprocess.Popen(command(server.url, out), stderr=subprocess.PIPE) as process,
    ):
        until(lambda: len(server.bodies) >= 1)
        second = subprocess.run(command(server.url, out, "--resume"), capture_output=True, text=True, check=False)
        process.kill()
    assert second.returncode == 1
    assert f"process {process.pid} is writing to this run" in second.stderr

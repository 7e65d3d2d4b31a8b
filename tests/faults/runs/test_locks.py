"""Two harness processes on one run."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from harness.core.errors import RunError
from harness.runs.folder import RunFolder
from tests.faults.matrix import count_cases
from tests.support.commands import wait_until
from tests.support.runs.sampling_runs import bench_run_command, predictions_without_times, run_options, run_sampling
from tests.support.servers.chat_answers import mixed_answer
from tests.support.servers.chat_server import ChatServer

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
    """Start a process that takes a run if it can, and holds it until it is stopped or killed."""
    arguments = [sys.executable, "-c", HOLDER, str(run)]
    return subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00" * 50])
def test_a_run_in_use_is_refused_and_freed_when_its_process_dies(tmp_path: Path, content: bytes | None) -> None:
    """A run that another process writes to is refused, by the name of that process if the lock file is readable;
    after that process is killed, the run is free.
    """
    with holder(tmp_path) as process:
        assert first_line(process) == "held"
        if content is not None:
            (tmp_path / ".lock").write_bytes(content)
        named = f"process {process.pid} is writing" if content is None else "is writing to this run; wait or stop it"
        with pytest.raises(RunError, match=named), RunFolder(tmp_path).locked():
            pass
        process.kill()
    with RunFolder(tmp_path).locked():
        pass


def test_resuming_a_run_in_use(tmp_path: Path, undisturbed: Path) -> None:
    """Resuming a run that another process holds is refused before anything is written or requested."""
    with ChatServer(mixed_answer) as server, holder(tmp_path / "run") as process:
        assert first_line(process) == "held"
        with pytest.raises(RunError, match=f"process {process.pid} is writing"):
            run_sampling(run_options(server, tmp_path / "run"))
        assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
        assert server.bodies == []
        process.kill()
        process.wait()
        run_sampling(run_options(server, tmp_path / "run"))
    assert predictions_without_times(tmp_path / "run") == predictions_without_times(undisturbed)


@pytest.mark.slow
def test_many_at_once(tmp_path: Path) -> None:
    """If several processes take one run at once, exactly one gets it, and the others name it."""
    for turn in range(3):
        with ExitStack() as stack:
            all_ = [stack.enter_context(holder(tmp_path / str(turn))) for _ in range(6)]
            texts = [first_line(process) for process in all_]
            (winner,) = [process for process, text in zip(all_, texts, strict=True) if text == "held"]
            others = [text for text in texts if text != "held"]
            assert all(f"process {winner.pid} is writing" in text or "process unknown" in text for text in others)
            assert len(others) == 5
            for process in all_:
                process.kill()
        count_cases(5)


@pytest.mark.slow
def test_two_harnesses_cannot_write_one_run(tmp_path: Path) -> None:
    """A second bench run on one run is refused, and the error names the process that writes to it."""
    out = tmp_path / "run"
    with (
        ChatServer(mixed_answer, seconds=0.5) as server,
        subprocess.Popen(bench_run_command(server.url, out), stderr=subprocess.PIPE) as process,
    ):
        wait_until(lambda: len(server.bodies) >= 1)
        second = subprocess.run(
            bench_run_command(server.url, out, "--resume"), capture_output=True, text=True, check=False
        )
        process.kill()
    assert second.returncode == 1
    assert f"process {process.pid} is writing to this run" in second.stderr

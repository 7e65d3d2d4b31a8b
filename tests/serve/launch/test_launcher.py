"""Starting, watching and stopping a server's process, without vLLM."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from harness.core.errors import ServerError
from serve.launch.preparation import free_port
from serve.launch.process import Server, not_restored, stop_server, wait_until_ready


def child(code: str, log: Path) -> tuple[subprocess.Popen[bytes], Server]:
    """Start Python code as a server whose output goes to a log."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-u", "-c", code], stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    return process, Server(f"http://127.0.0.1:{free_port('127.0.0.1', None)}", process.pid, log)


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (
            "print('line one'); raise ValueError('the model is odd')",
            r"ended with status 1.*: ValueError: the model is odd",
        ),
        ("import os, signal; print('hi'); os.kill(os.getpid(), signal.SIGKILL)", "was killed by SIGKILL"),
        ("raise SystemExit('OSError: [Errno 98] Address already in use')", "choose another with --port"),
        ("raise ValueError('No available memory for the cache blocks. Try')", "lower --kv-cache-gib"),
    ],
)
def test_a_dying_server_shows_its_log_at_once(tmp_path: Path, code: str, expected: str) -> None:
    process, server = child(code, tmp_path / "log")
    started = time.monotonic()
    with pytest.raises(ServerError) as caught:
        wait_until_ready(process, server)
    assert time.monotonic() - started < 10
    message = str(caught.value)
    assert re.search(expected, message.splitlines()[0])
    assert (tmp_path / "log").read_text().splitlines()[-1] in message


def test_waiting_for_a_server_ends_after_the_timeout(tmp_path: Path) -> None:
    process, server = child("import time; print('loading'); time.sleep(60)", tmp_path / "log")
    with pytest.raises(ServerError, match=r"not ready after 0 s; the end of .*log:\nloading"):
        wait_until_ready(process, server, seconds=0.5)
    stop_server(process.pid, 0, process)
    assert process.returncode is not None


def test_adapters_that_were_not_restored_are_found_in_the_log(tmp_path: Path) -> None:
    code = (
        "import sys; from serve.server.plugin import NOT_RESTORED, _log; _log.warning(NOT_RESTORED + '%s', 'a: gone')"
    )
    process, server = child(code + "; print('more')", tmp_path / "log")
    process.wait(30)
    assert not_restored(server.log) == ["a: gone"]


STUBBORN = """
import subprocess, sys, time
deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"
grandchild = subprocess.Popen([sys.executable, "-c", deaf])
print("grandchild", grandchild.pid)
time.sleep(60)
"""


@pytest.mark.slow
def test_stopping_ends_the_whole_group(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process, _ = child(STUBBORN, log)
    while "grandchild" not in log.read_text():
        assert process.poll() is None
        os.sched_yield()
    grandchild = psutil.Process(int(log.read_text().split()[1]))
    stop_server(process.pid, 0, process)
    assert process.returncode == -signal.SIGTERM
    grandchild.wait(5)
    stop_server(process.pid, 0)  # nothing left: nothing happens


OWNED = """
import signal, sys, threading
import serve.server.parent_watch
from serve.server.parent_watch import end_with_parent
if sys.argv[1:]:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    serve.server.parent_watch._PATIENCE = 1
end_with_parent()
print("watching", flush=True)
threading.Event().wait(300)
"""
OWNER = """
import os, subprocess, sys
env = {**os.environ, "ARC_BENCH_OWNER_PID": str(os.getpid())}
child = subprocess.Popen([sys.executable, "-c", *sys.argv[1:]], env=env, start_new_session=True)
print(child.pid, flush=True)
child.wait()
"""


FOREIGN_CHILD = """
import os, subprocess, sys
from serve.server.parent_watch import end_with_parent
end_with_parent()
assert "ARC_BENCH_OWNER_PID" not in os.environ
os.environ["ARC_BENCH_OWNER_PID"] = sys.argv[1]  # even where it reaches a child
code = "import time; from serve.server.parent_watch import end_with_parent; end_with_parent(); time.sleep(3)"
print(subprocess.run([sys.executable, "-c", code]).returncode, flush=True)
"""


@pytest.mark.slow
def test_other_children_of_the_server_are_not_watched() -> None:
    """vLLM inspects a model's class in a child of its API process, which loads our plugin with the same environment."""
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, FOREIGN_CHILD, str(os.getpid())], stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        owner.stdout.readline()
        assert owner.stdout.readline() == "0\n"


@pytest.mark.slow
@pytest.mark.parametrize("deaf", [[], ["deaf"]], ids=["by SIGTERM", "deaf to SIGTERM"])
def test_a_server_ends_with_a_killed_owner(deaf: list[str]) -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER, OWNED, *deaf], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        server = psutil.Process(int(owner.stdout.readline()))
        assert owner.stdout.readline() == "watching\n"
        assert server.is_running()
        owner.kill()
        server.wait(10)

"""Harness, server or both killed at 100 random moments: resumed, the run equals an undisturbed one."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.core.random_stream import Stream
from harness.runs.folder import RunFolder
from tests.faults.matrix import count_cases
from tests.support.runs.sampling_runs import assert_same_run, bench_run_command, uninterrupted_run

pytestmark = pytest.mark.long

MOMENTS = 100
LONGEST = 5.0
"""Seconds from the start of ``bench run`` to the kill, at most: about what a whole run takes."""
ANSWER = "0.4"
"""Seconds an answer takes, so that most of a run is sampling."""


class ServerProcess:
    """``tests.support.servers.chat_server`` as a process on a free port."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        arguments = [sys.executable, "-m", "tests.support.servers.chat_server", str(self.port), ANSWER, "--tokens"]
        self.process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline().strip() == str(self.port)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def served() -> Iterator[ServerProcess]:
    server = ServerProcess()
    try:
        yield server
    finally:
        server.kill()


def disturb(moment: int, server: ServerProcess, out: Path, stream: Stream) -> str:
    """Start a run, kill the harness or the server or both, and complete the run.

    Returns:
        What was killed, and how many predictions were saved then.
    """
    api = ("chat", "auto")[moment % 2]
    whom = ("harness", "server", "both")[moment // 2 % 3]
    arguments = bench_run_command(server.url, out, "--api", api, "--wait", "60s", "--max-in-flight", "8")
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as bench:
        threading.Event().wait(LONGEST * stream.uniform())
        if whom != "harness":
            server.kill()
        if whom != "server":
            bench.kill()
        if whom != "harness":
            server.start()
        bench.communicate(timeout=120)
    lines = (out / "predictions.jsonl").read_bytes().count(b"\n") if (out / "predictions.jsonl").exists() else 0
    # A server that is killed before it is greeted ends the run; one that is killed later is waited for.
    if not (out / "results.json").exists():
        resume = ["--resume"] if out.exists() else []
        subprocess.run([*arguments, *resume], check=True, capture_output=True)
    return f"{whom} killed, {api}, {lines} saved"


def test_kill_matrix(tmp_path: Path) -> None:
    """kill -9 of harness, server or both at 100 random moments: the completed run equals an undisturbed one."""
    undisturbed = {
        api: uninterrupted_run(tmp_path / f"undisturbed-{api}", tokens=api == "completions")
        for api in ("chat", "completions")
    }
    seen = []
    with served() as server:
        for moment in range(MOMENTS):
            out = tmp_path / f"run-{moment}"
            seen.append(disturb(moment, server, out, Stream("kill", moment)))
            print(moment, seen[-1], flush=True)
            assert_same_run(out, undisturbed[RunFolder(out).manifest().config.api])
            count_cases()
    amid = [text for text in seen if " 0 saved" not in text and " 64 saved" not in text]
    print(f"{len(amid)} of {MOMENTS} in the middle of sampling")
    assert len(amid) >= MOMENTS // 5

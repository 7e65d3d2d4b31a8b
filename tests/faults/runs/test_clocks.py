"""A system clock that jumps back and forth during a run."""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from time import monotonic

import pytest

from harness.client.protocol import error_response as refusals
from tests.faults.matrix import count_cases
from tests.support.commands import wait_until
from tests.support.runs.sampling_runs import (
    QUICK_POLICY,
    assert_same_run,
    bench_run_command,
    count_outcomes,
    predictions_without_times,
    run_options,
    run_sampling,
    uninterrupted_run,
)
from tests.support.servers.chat_answers import Body, mixed_answer
from tests.support.servers.chat_server import ChatServer

DAYS = (0.0, 400.0, -400.0, 0.5, -0.5, 20_000.0)
JUMPING = """
import datetime, itertools, os, time
TRUE, TRUE_NS, Clock = time.time, time.time_ns, datetime.datetime
DAYS = itertools.cycle((0.0, 400.0, -400.0, 0.5, -0.5, 20000.0))
READ = os.open(__file__ + ".read", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def jump():
    os.write(READ, b"x")
    return 86400.0 * next(DAYS)

class Jumping(Clock):
    @classmethod
    def now(cls, tz=None):
        return Clock.now(tz) + datetime.timedelta(seconds=jump())

time.time = lambda: TRUE() + jump()
time.time_ns = lambda: TRUE_NS() + int(1e9 * jump())
datetime.datetime = Jumping
"""
"""A ``sitecustomize`` under which each look at the clock finds another day."""


@pytest.fixture
def jumps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Move the system clock of this process by days at each call, and return the list of calls."""
    looks: list[float] = []
    true, days = time.time, cycle(DAYS)

    def look() -> float:
        looks.append(true() + 86400 * next(days))
        return looks[-1]

    monkeypatch.setattr(time, "time", look)
    monkeypatch.setattr(refusals, "time", look)
    return looks


def test_pauses_are_bounded_when_the_clock_jumps(tmp_path: Path, undisturbed: Path, jumps: list[float]) -> None:
    """A server asks for a pause until a date while the clock jumps by days: no pause is longer than the user's
    limit, and the run equals an undisturbed one.
    """
    refused: list[Body] = []

    def refuse(body: Body) -> tuple[int, Body] | None:
        if body.get("max_tokens") == 1 or len(refused) >= len(DAYS):
            return None
        refused.append(body)
        return 503, {"error": "later"}

    soon = {"Retry-After": "Thu, 01 Jan 2026 00:00:00 GMT"}
    start = monotonic()
    with ChatServer(mixed_answer, refuse=refuse, headers=soon) as server:
        run_sampling(run_options(server, tmp_path / "run", policy=replace(QUICK_POLICY, wait=0.3)))
    assert monotonic() - start < 30
    assert predictions_without_times(tmp_path / "run") == predictions_without_times(undisturbed)
    assert count_outcomes(tmp_path / "run")["error"] == 0
    assert len(jumps) >= len(DAYS)
    count_cases(len(DAYS))


@pytest.mark.slow
def test_a_run_under_a_jumping_clock(tmp_path: Path) -> None:
    """bench run, killed and resumed while the clock jumps by days at each call, equals an undisturbed run."""
    whole, out = uninterrupted_run(tmp_path / "undisturbed"), tmp_path / "run"
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(JUMPING)
    first = [str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")]
    under = {**os.environ, "PYTHONPATH": os.pathsep.join(first)}
    with ChatServer(mixed_answer, seconds=0.02) as server:
        with subprocess.Popen(bench_run_command(server.url, out), env=under, stderr=subprocess.PIPE) as process:
            wait_until(lambda: len(server.bodies) >= 20 or process.poll() is not None)
            process.kill()
        done = subprocess.run(
            bench_run_command(server.url, out, "--resume", "--timeout", "20s"),
            env=under,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert_same_run(out, whole)
    looks = (tmp_path / "site" / "sitecustomize.py.read").stat().st_size
    assert looks > 0
    count_cases(looks)

"""Run ``bench`` commands in this process, and wait for conditions."""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic

import pytest

from harness.cli import cli
from harness.cli.entry import run_cli

OWN_PEAK_MIB = "int(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1]) // 1024"
"""Code for the peak memory of the process that runs it; ``ru_maxrss`` also counts that of the one that started it."""


def run_bench(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Run a command and return its exit status, standard output and standard error."""
    status = run_cli(cli, [*map(str, words)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def wait_until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Poll until the condition is true, and fail after ``seconds``."""
    waiter = threading.Event()
    end = monotonic() + seconds
    while monotonic() < end:
        if condition():
            return
        waiter.wait(0.005)
    raise AssertionError(f"the condition was not true within {seconds:g} seconds")

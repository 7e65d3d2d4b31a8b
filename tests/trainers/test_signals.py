"""Signals that end a training run, and those that a parent process passes on a second time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trainers.run.stop import StopSignal

STEP = """
import os, signal, sys, time
came = []
def note(number, frame):
    came.append(number)
    os.write(1, b"%d\\n" % number)  # print is not to be entered twice
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, note)
print("ready", flush=True)
end = time.monotonic() + float(sys.argv[-1])
while time.monotonic() < end:
    time.sleep(0.01)
print("saved", flush=True)
"""
PARENT = """
import sys
from harness.cli.workflows.steps import run_bench
run_bench("1", launcher=["-c", open(sys.argv[1]).read()])
"""


def test_a_second_sigterm_leaves_a_training_step_alone_and_ctrl_c_does_not() -> None:
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.received == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
def test_a_command_waits_for_its_step_however_often_it_is_interrupted(tmp_path: Path, times: int) -> None:
    (tmp_path / "step.py").write_text(STEP)
    command = [sys.executable, "-c", PARENT, str(tmp_path / "step.py")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as parent:
        assert parent.stdout is not None
        said = iter(parent.stdout)
        assert any(line == "ready\n" for line in said)
        for _ in range(times):
            os.killpg(parent.pid, signal.SIGINT)  # as the terminal does
            time.sleep(0.2)
        *signals, last = said
    assert last == "saved\n"
    assert signals.count(f"{signal.SIGINT.value}\n") == times

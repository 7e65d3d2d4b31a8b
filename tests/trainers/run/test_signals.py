"""Signals during training, also when a parent process forwards them a second time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from trainers.run.stop import StopAtStep, StopSignal, TrainingStopped

STEP = """
import os, signal, sys, time
received = []
def record(number, frame):
    received.append(number)
    os.write(1, b"%d\\n" % number)  # a whole line at once, unlike print: a signal may come in between
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, record)
os.write(1, b"ready\\n")
end = time.monotonic() + 60
while received.count(signal.SIGINT) < int(sys.argv[-1]) and time.monotonic() < end:
    time.sleep(0.01)
os.write(1, b"saved\\n")
"""
PARENT = """
import sys
from harness.cli.workflows.steps import run_bench
try:
    run_bench(sys.argv[2], launcher=["-c", open(sys.argv[1]).read()])
finally:
    print("the command ends", flush=True)
"""


def test_a_second_sigterm_is_ignored_and_a_second_ctrl_c_interrupts() -> None:
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.received == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 2])
def test_a_command_waits_for_its_step_at_every_interrupt(tmp_path: Path, times: int) -> None:
    (tmp_path / "step.py").write_text(STEP)
    command = [sys.executable, "-c", PARENT, str(tmp_path / "step.py"), str(times)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as parent:
        assert parent.stdout is not None
        output = iter(parent.stdout)
        assert any(line == "ready\n" for line in output)
        for _ in range(times):
            os.killpg(parent.pid, signal.SIGINT)  # as the terminal does
            assert any(line == f"{signal.SIGINT.value}\n" for line in output)
        rest = list(output)
    # The SIGTERM that the command sends may reach the step after it has saved, and is then reported behind it.
    assert [line for line in rest if not line.strip().isdigit()] == ["saved\n", "the command ends\n"]


@pytest.mark.parametrize(("signalled", "by"), [(True, "SIGTERM"), (False, "a signal to another training process")])
def test_a_process_that_stops_before_the_last_step_has_no_result(
    monkeypatch: pytest.MonkeyPatch, signalled: bool, by: str
) -> None:
    """Also one that received no signal, and learns from the others' that training stops after this step."""
    import torch

    def another_process_was_signalled(received: torch.Tensor, operation: object) -> None:
        received.fill_(1)

    monkeypatch.setattr(torch.distributed, "all_reduce", another_process_was_signalled)
    with StopSignal() as stop:
        if signalled:
            os.kill(os.getpid(), signal.SIGTERM)
        control, two = SimpleNamespace(), SimpleNamespace(device="cpu", world_size=2)
        StopAtStep(stop).on_step_end(two, SimpleNamespace(global_step=7), control)
    assert control.should_save
    assert control.should_training_stop
    stop.check_finished(7)
    with pytest.raises(TrainingStopped, match=f"^stopped by {by} after step 7 of 8; it is saved"):
        stop.check_finished(8)


def test_a_run_without_signals_is_finished() -> None:
    with StopSignal() as stop:
        StopAtStep(stop).on_step_end(
            SimpleNamespace(device="cpu", world_size=1), SimpleNamespace(global_step=7), SimpleNamespace()
        )
    stop.check_finished(8)

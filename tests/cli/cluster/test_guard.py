"""What a node does without Ray: checks, waiting for the folder, and the end of a training with its parent."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from harness.cli.workflows.cluster import node
from harness.cli.workflows.cluster.dispatch import Running
from tests.cli.cluster.counting import counting_work
from tests.support.commands import wait_until
from trainers.store.run_folder import lock_folder

PARENT = """
import os, subprocess, sys, time
guard = [sys.executable, "-m", "harness.cli.workflows.cluster.guard", str(os.getpid())]
child = subprocess.Popen([*guard, *sys.argv[1:]], stdout=subprocess.DEVNULL)
print(child.pid, flush=True)
time.sleep(600)
"""
"""A process of Ray that has started a training."""


@pytest.fixture(autouse=True)
def named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give this process the name of a node, as Ray would, and make the waiting short."""
    monkeypatch.setattr(node, "node_name", lambda: "here (abcdef)")
    monkeypatch.setattr(node, "_SHARED_SECONDS", 0.5)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent's end")
def test_a_training_ends_with_its_parent(tmp_path: Path) -> None:
    """Where the process of Ray is killed, the training gets SIGTERM, saves, and releases its folder."""
    work = counting_work(tmp_path, "a", 1000)
    command = [sys.executable, "-c", PARENT, sys.executable, *work.arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        training = psutil.Process(int(parent.stdout.readline()))
        wait_until((tmp_path / "a" / "steps.txt").exists)
        parent.send_signal(signal.SIGKILL)
    try:
        training.wait(20)
    finally:
        with suppress(psutil.NoSuchProcess):
            training.kill()
    with lock_folder(tmp_path / "a"):
        assert not (tmp_path / "a" / "manifest.json").exists()


@pytest.mark.slow
def test_a_node_waits_until_the_folder_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training is not begun while the lost node's process has the folder, and is done once it is released."""
    work, log = counting_work(tmp_path, "a", 2), tmp_path / "a.log"
    holder = subprocess.Popen(
        [sys.executable, "-c", "import sys, time; from pathlib import Path; from trainers.store.run_folder import *\n"
         "with lock_folder(Path(sys.argv[1])): print(flush=True); time.sleep(600)", str(tmp_path / "a")],
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert holder.stdout is not None
    holder.stdout.readline()
    with monkeypatch.context() as patch:
        patch.setattr(node, "_LOCK_SECONDS", 0.5)
        outcome = node.run_training(work)
    assert (outcome.status, outcome.node) == (1, "here (abcdef)")
    assert f"process {holder.pid} trains in this folder" in outcome.message
    assert log.read_text() == f"{node.RUNNING}here (abcdef)\n", "its process was started"
    threading.Timer(1.0, holder.kill).start()
    assert node.run_training(work) == node.Outcome(0, "here (abcdef)")
    holder.wait()
    assert len((tmp_path / "a" / "steps.txt").read_text().splitlines()) == 2


def test_a_node_that_cannot_train_says_why(tmp_path: Path) -> None:
    """Another recipe or none in the folder, no working directory, and other versions are refused, each in one line."""
    work = counting_work(tmp_path, "a", 1)
    for change, part in (
        ({"input": str(tmp_path / "gone.yaml")}, "node here (abcdef) does not see"),
        ({"input_digest": "0" * 64}, "--out must be in a folder that all nodes share"),
        ({"directory": str(tmp_path / "gone")}, "where the command was started"),
        ({"versions": {**work.versions, "torch": "0.1"}}, "instead of 0.1; start Ray from the same venv"),
        ({"versions": {"nothing": "1"}}, "nothing is missing instead of 1"),
    ):
        outcome = node.run_training(replace(work, **change))
        assert outcome.status == 1
        assert part in outcome.message
        assert "\n" not in outcome.message
    assert not (tmp_path / "a.log").exists(), "a refused training wrote a log that looks like a start"


@pytest.mark.slow
def test_a_failed_or_killed_training_has_its_last_error(tmp_path: Path) -> None:
    """The outcome has the status and the last error of this attempt, not of what the log has from before."""
    work = counting_work(tmp_path, "a", -1)
    Path(work.log).write_text("error: of yesterday\n")
    assert node.run_training(work) == node.Outcome(3, "here (abcdef)", "-1 steps cannot be counted")
    killed = replace(work, arguments=("-c", "import os; os.kill(os.getpid(), 9)"))
    assert node.run_training(killed) == node.Outcome(1, "here (abcdef)", "killed by SIGKILL")
    silent = replace(work, arguments=("-c", "raise SystemExit(7)"))
    assert node.run_training(silent) == node.Outcome(7, "here (abcdef)", "it said nothing")


def test_a_log_is_followed_from_where_it_was(tmp_path: Path) -> None:
    """Starts of earlier sessions do not count, and a line counts once it is complete."""
    path = tmp_path / "a.log"
    path.write_text(f"{node.RUNNING}old (000000)\nstep 1\n")
    state = Running(path, path.stat().st_size)
    state.read()
    assert (state.starts, state.node, state.line) == (0, "", "")
    for text, expected in (
        (f"{node.RUNNING}one (1", (0, "", "")), ("11111)\n", (1, "one (111111)", "")),
        ("step 1\nst", (1, "one (111111)", "step 1")), ("ep 2\n\n", (1, "one (111111)", "step 2")),
        (f"{node.RUNNING}two (222222)\n", (2, "two (222222)", "")),
    ):  # fmt: skip
        with path.open("a") as file:
            file.write(text)
        state.read()
        assert (state.starts, state.node, state.line) == expected


def test_python_this_code_and_the_packages_of_training_are_compared() -> None:
    """The versions that must be equal on all nodes are those that decide what is trained."""
    assert {"Python", "arc-bench", "torch", "transformers", "peft"} <= node.code_versions().keys()


def test_a_file_that_appears_late_is_awaited(tmp_path: Path) -> None:
    """On a network file system a file may be seen some time after another machine has written it."""
    late = tmp_path / "late"
    assert not node.is_soon(late.exists)
    threading.Timer(0.2, late.touch).start()
    assert node.is_soon(late.exists)

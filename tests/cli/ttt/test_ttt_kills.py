"""``bench ttt`` when its processes are killed: the same adapters and predictions as without.

Tests run with a real vLLM, and with a server that has the same routes and a language model of a few lines.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from harness.runs.folder import RunFolder
from harness.runs.logs.task_training_log import TTT_LOG
from serve.launch.process import Server
from tests.support.commands import wait_until
from tests.support.runs.ttt_runs import Site, assert_same

pytestmark = pytest.mark.slow


def start(site: Site, out: Path, *more: str) -> subprocess.Popen[bytes]:
    """Start a run in a process of its own."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with (out.parent / "stderr.txt").open("ab") as errors:
        return subprocess.Popen([sys.executable, "-m", "harness.cli", *site.words(out, *more)], stderr=errors)


def trainer_of(process: subprocess.Popen[bytes]) -> psutil.Process | None:
    """Return the trainer that a run has started."""
    for child in psutil.Process(process.pid).children():
        if "trainers.ttt" in child.cmdline():
            return child
    return None


def n_adapters(out: Path) -> int:
    return len(list((out / "adapters").glob("cross-*")))


KILLS: dict[str, Callable[[Path], bool]] = {
    "before the first adapter": lambda out: (out / "ttt.json").exists(),
    "after the first adapter": lambda out: n_adapters(out) == 1,
    "after the first answer": lambda out: (out / TTT_LOG).exists(),
}


@pytest.mark.parametrize("moment", list(KILLS))
@pytest.mark.parametrize("victim", ["harness", "trainer"])
def test_a_killed_run_gives_the_same_adapters_and_predictions(
    site: Site, finished: Path, tmp_path: Path, victim: str, moment: str
) -> None:
    out = tmp_path / "run"
    process = start(site, out)
    wait_until(lambda: KILLS[moment](out), 200)
    if victim == "trainer":
        wait_until(lambda: trainer_of(process) is not None or process.poll() is not None, 60)
        if (trainer := trainer_of(process)) is not None:
            trainer.kill()
        assert process.wait(300) == 0
    else:
        trainer = trainer_of(process)
        process.kill()
        process.wait()
        if trainer is not None:
            wait_until(lambda: not trainer.is_running() or trainer.status() == psutil.STATUS_ZOMBIE, 60)
        assert start(site, out, "--resume").wait(300) == 0
    assert_same(out, finished)
    assert RunFolder(out).manifest().finished is not None
    assert site.is_clean()


def test_a_folder_that_has_the_plan_alone_is_resumed(site: Site, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = start(site, out)
    wait_until(lambda: (out / "ttt.json").exists(), 200)
    process.kill()
    process.wait()
    (out / "ttt-recipe.json").unlink(missing_ok=True)
    assert start(site, out, "--resume").wait(300) == 0
    assert_same(out, finished)


def test_an_interrupted_run_says_how_to_resume(site: Site, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = start(site, out)
    wait_until(lambda: (out / TTT_LOG).exists(), 200)
    process.send_signal(signal.SIGINT)
    if process.wait(100) == 130:
        assert "--resume" in (tmp_path / "stderr.txt").read_text()
        assert start(site, out, "--resume").wait(300) == 0
    assert_same(out, finished)


def test_a_server_of_its_own_that_is_killed_is_started_again(finished: Path, site: Site, tmp_path: Path) -> None:
    if not isinstance(site.server, Server):
        pytest.skip("its own server is a vLLM, whose answers are those of no other")
    out = tmp_path / "run"
    words = list(site.words(out))
    for option in ("--server", "--adapters"):
        del words[words.index(option) : words.index(option) + 2]
    with (tmp_path / "stderr.txt").open("ab") as errors:
        process = subprocess.Popen([sys.executable, "-m", "harness.cli", *words], stderr=errors)
    wait_until(lambda: (out / TTT_LOG).exists() or process.poll() is not None, 400)
    for child in psutil.Process(process.pid).children():
        if any("vllm" in word for word in child.cmdline()):
            os.killpg(child.pid, signal.SIGKILL)
    assert process.wait(400) == 0
    assert_same(out, finished)

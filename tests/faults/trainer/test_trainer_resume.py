"""Training runs that are killed, stopped, out of disk space or distributed end with the same bits."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import psutil
import pytest

from harness.core.digests import weights_digest
from harness.core.errors import ConfigError
from tests.faults.matrix import count_cases
from tests.support.training.train_runs import (
    STEPS,
    TORCHRUN,
    adapter_manifest,
    interrupt_training,
    kill_tree,
    last_error_line,
    log_steps,
    recipe_data,
    run_python,
    train_command,
)
from trainers.recipe.schema import make_recipe
from trainers.run.api import train
from trainers.store.manifest import read_manifest

pytestmark = pytest.mark.slow


def assert_same_bits(one: Path, other: Path) -> None:
    assert log_steps(one) == log_steps(other)
    assert weights_digest(one) == weights_digest(other) == adapter_manifest(other).weights_sha256
    assert adapter_manifest(one).datasets == adapter_manifest(other).datasets


def steps_kept(output: Path) -> list[int]:
    return sorted(int(path.name.split("-")[1]) for path in (output / "checkpoints").glob("checkpoint-*"))


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.long)])
def test_killed_torn_and_stopped(train_root: Path, qwen: Path, whole_run: Path, workers: int) -> None:
    """Killed, with its newest checkpoint truncated, then stopped: training resumes to a bit-equal adapter and log."""
    output = train_root / f"cut{workers}"
    arguments = train_command(recipe_data(qwen, output, workers=workers))
    status, _ = interrupt_training(arguments, output, 16, kill_tree)
    assert status == -signal.SIGKILL
    newest = output / "checkpoints" / f"checkpoint-{steps_kept(output)[-1]}"
    torn = newest / "optimizer.pt"
    torn.write_bytes(torn.read_bytes()[:1000])
    assert read_manifest(output) is None
    status, error = interrupt_training(arguments, output, 18, lambda p: p.send_signal(signal.SIGTERM))
    assert status == 130
    assert "stopped by SIGTERM after step" in error
    assert newest.name in error
    assert not (output / "manifest.json").exists()
    finished = run_python(arguments)
    assert finished.returncode == 0, finished.stderr
    assert_same_bits(output, whole_run)
    count_cases(3)


def test_a_signal_to_the_process_group_spares_the_workers(train_root: Path, qwen: Path, whole_run: Path) -> None:
    """A signal to the whole process group stops training after the step, with a checkpoint; resumed, it ends
    bit-equal.
    """
    output = train_root / "group"
    arguments = train_command(recipe_data(qwen, output, workers=2))
    status, error = interrupt_training(arguments, output, 9, lambda p: os.killpg(p.pid, signal.SIGTERM))
    assert status == 130, error
    assert "stopped by SIGTERM after step" in last_error_line(error)
    finished = run_python(arguments)
    assert finished.returncode == 0, finished.stderr
    assert_same_bits(output, whole_run)


def test_full_disk_at_a_line_of_the_log_and_at_a_checkpoint(
    train_root: Path, qwen: Path, whole_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk at a line of the log or at a checkpoint ends training with one error; resumed, it ends bit-equal.

    The limit on the size of files fails a write as a full disk does, with another errno.
    """

    def limit(bytes_a_file: int, process: psutil.Process) -> None:
        process.rlimit(psutil.RLIMIT_FSIZE, (bytes_a_file, resource.RLIM_INFINITY))

    # A .pyc that the limit cuts short would break the environment (see disks.py).
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    output = train_root / "full"
    arguments = train_command(recipe_data(qwen, output))
    status, error = interrupt_training(arguments, output, 9, lambda p: limit(1, p))
    assert status == 1
    assert "log.jsonl cannot be written: File too large. Make room. The checkpoints up to here are" in last_error_line(
        error
    )
    before = steps_kept(output)[-1]
    status, error = interrupt_training(arguments, output, before + 1, lambda p: limit(30_000, p))
    assert status == 1
    assert f"the checkpoint of step {before + 7} cannot be written to" in last_error_line(error)
    assert "Make room. The checkpoints up to here are whole: start the same command again" in last_error_line(error)
    finished = run_python(arguments)
    assert finished.returncode == 0, finished.stderr
    assert f"resuming after step {before}" in finished.stderr
    assert_same_bits(output, whole_run)
    count_cases(2)


@pytest.mark.long
@pytest.mark.parametrize("workers", [0, 2])
def test_two_processes_killed_and_resumed(train_root: Path, qwen: Path, workers: int) -> None:
    """Two training processes killed with their launcher resume to bit-equal best weights."""
    check = {"spec": "toy/cross/evaluation#n=5", "exact_tasks": 3, "keep": "best", "patience": 3}
    data = recipe_data(qwen, train_root / f"pair{workers}", validation=check, eval_steps=2, learning_rate=1e-2)
    data |= {"scheduler": "constant", "warmup": 0, "workers": workers}
    done = run_python([*TORCHRUN, *train_command(data)])
    assert done.returncode == 0, done.stderr[-3000:]
    whole, output = train_root / f"pair{workers}", train_root / f"pair{workers}-cut"
    arguments = [*TORCHRUN, *train_command({**data, "output_dir": str(output)})]
    status, _ = interrupt_training(arguments, output, 16, kill_tree)
    assert status == -signal.SIGKILL
    assert steps_kept(output) == [7]
    done = run_python(arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "resuming after step 7" in done.stderr
    assert_same_bits(output, whole)
    assert adapter_manifest(output).kept_step == adapter_manifest(whole).kept_step < adapter_manifest(output).steps


def test_finished_is_returned_at_once_and_changed_is_refused(
    whole_run: Path, qwen: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A finished folder is returned as it is; one of another recipe is refused, naming the changed keys."""
    data = recipe_data(qwen, whole_run)
    before = (whole_run / "manifest.json").stat().st_mtime_ns
    assert train(make_recipe({**data, "workers": 1, "save_steps": 99}), whole_run) == whole_run
    assert (whole_run / "manifest.json").stat().st_mtime_ns == before
    assert "is finished already; nothing was trained" in capsys.readouterr().err
    changed = {**data, "seed": 5, "lora": {"rank": 4, "dropout": 0.1}}
    with pytest.raises(ConfigError, match=r"another recipe; changed: lora\.rank, seed\. Give another output_dir"):
        train(make_recipe(changed), whole_run)
    count_cases(2)


@pytest.mark.long
def test_a_signal_to_one_of_two_processes_leaves_no_result(train_root: Path, qwen: Path) -> None:
    """Training stops in both after the same step; the one without the signal must not take its weights as final."""

    def signal_the_second(launcher: psutil.Process) -> None:
        (second,) = [child for child in launcher.children() if child.environ().get("RANK") == "1"]
        second.send_signal(signal.SIGTERM)

    output = train_root / "one-of-two"
    arguments = [*TORCHRUN, *train_command(recipe_data(qwen, output))]
    status, error = interrupt_training(arguments, output, 9, signal_the_second)
    assert status == 1
    assert "stopped by a signal to another training process after step" in error
    assert not (output / "manifest.json").exists()
    done = run_python(arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    assert adapter_manifest(output).steps == STEPS

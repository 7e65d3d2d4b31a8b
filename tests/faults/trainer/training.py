"""Training runs that are killed at a chosen moment, in processes forked from one that has imported torch."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from harness.core.digests import weights_digest
from harness.core.errors import AdapterError
from serve.registry.store import Registry
from tests.support.training.train_runs import Data, adapter_manifest, log_steps, recipe_data, train_command
from trainers.store.manifest import check_unchanged, read_manifest

os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["trainers.run.session", "peft", "harness.cli", "tests.faults.trainer.training"])
CHECK = {"spec": "toy/cross/evaluation#n=2", "keep": "best"}
TIMEOUT = 300
"""Seconds for one training run on a busy machine."""
Arm = Callable[[], None]
"""Prepares a fault in the process that trains."""


def small_recipe(model: Path, output: Path, **changes: Any) -> Data:
    """Return a recipe of six steps with a checkpoint and a validation after every second step."""
    steps = {"max_steps": 6, "batch_size": 2, "save_steps": 2, "eval_steps": 2, "learning_rate": 1e-2}
    return recipe_data(model, output, **{**steps, "max_seq_len": 400, "validation": CHECK, **changes})


def start_training(data: Data, arm: Arm | None = None, terminal: Path | None = None) -> BaseProcess:
    """Start a process that calls ``arm`` and then trains, with its output in the file ``terminal``."""
    process = FORKS.Process(target=_train, args=(train_command(data)[2:], str(terminal or output_path(data)), arm))
    process.start()
    return process


def run_training(data: Data, arm: Arm | None = None) -> int:
    """Train in a process and return its exit status."""
    process = start_training(data, arm)
    process.join(TIMEOUT)
    status = process.exitcode
    if status is None:
        process.kill()
        process.join()
    assert status is not None, terminal_output(data)
    return status


def output_path(data: Data) -> Path:
    """Return the file for the terminal output of a recipe's training."""
    return Path(data["output_dir"]).with_suffix(".out")


def terminal_output(data: Data) -> str:
    """Return what the last training run of a recipe wrote to its terminal."""
    return output_path(data).read_text(encoding="utf-8")


def _train(words: list[str], terminal: str, arm: Arm | None) -> None:
    with open(terminal, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    from harness.cli import cli
    from harness.cli.entry import run_cli

    if arm is not None:
        arm()
    status = run_cli(cli, words)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def die_at(folder: str, event: int, tally: str | None = None) -> None:
    """Kill this process just before its ``event``-th change to a folder.

    Args:
        tally: file to write the number of changes into.
    """
    count = 0

    def hook(name: str, values: tuple[Any, ...]) -> None:
        nonlocal count
        changes = name in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate")
        changes = changes or (name == "open" and (values[1] or "r")[0] in "wax")
        if changes and isinstance(values[0], (str, os.PathLike)) and str(values[0]).startswith(folder):
            count += 1
            if count == event:
                os.kill(os.getpid(), signal.SIGKILL)
            if tally is not None:
                descriptor = os.open(tally, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.write(descriptor, str(count).encode())
                os.close(descriptor)

    sys.addaudithook(hook)


def die_at_change(data: Data, event: int) -> Arm:
    """Return an arm that kills the process just before the ``event``-th change to the output folder."""
    return partial(die_at, data["output_dir"], event)


def count_changes(data: Data) -> int:
    """Train without faults and return the number of changes to the output folder."""
    tally = Path(data["output_dir"]).with_suffix(".tally")
    assert run_training(data, partial(die_at, data["output_dir"], 0, str(tally))) == 0, terminal_output(data)
    return int(tally.read_text())


def check_killed_run(output: Path, whole: Path, registry: Registry) -> None:
    """Assert that a killed run looks finished only if its result is complete, and that the registry takes no other."""
    weights = adapter_manifest(whole).weights_sha256
    if output.exists() and (manifest := read_manifest(output)) is not None:
        check_unchanged(output, manifest)
        assert manifest.weights_sha256 == weights
    with suppress(AdapterError):
        assert weights_digest(registry.add("half", output).folder) == weights


def assert_equal_adapters(output: Path, whole: Path) -> None:
    """Assert that two adapters have equal weights, configurations and logs."""
    one, other = adapter_manifest(output), adapter_manifest(whole)
    check_unchanged(output, one)
    assert weights_digest(output) == other.weights_sha256
    assert one.config_sha256 == other.config_sha256
    assert (one.kept_step, one.datasets, one.losses) == (other.kept_step, other.datasets, other.losses)
    assert log_steps(output) == log_steps(whole)

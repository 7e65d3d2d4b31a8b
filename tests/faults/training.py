"""Real training runs that die at a chosen moment, in processes that are forked with torch in them: seconds a run."""

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

from harness.core.errors import AdapterError
from harness.core.hub_cache import weights_digest
from serve.registry.store import Registry
from tests.support.train_runs import Data, command, manifest_of, recipe_data, steps_of
from trainers.store.manifest import check_unchanged, read_manifest

os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["trainers.run.session", "peft", "harness.cli", "tests.faults.training"])
CHECK = {"spec": "toy/cross/evaluation#n=2", "keep": "best"}
SECONDS = 300
"""That a run may take on a busy machine."""
Arm = Callable[[], None]


def small(model: Path, output: Path, **changes: Any) -> Data:
    """Six steps with a checkpoint and a validation after every second."""
    steps = {"max_steps": 6, "batch_size": 2, "save_steps": 2, "eval_steps": 2, "learning_rate": 1e-2}
    return recipe_data(model, output, **{**steps, "max_seq_len": 400, "validation": CHECK, **changes})


def started(data: Data, arm: Arm | None = None, terminal: Path | None = None) -> BaseProcess:
    """A process that trains; ``arm`` is called in it first, and ``terminal`` takes what it says."""
    process = FORKS.Process(target=_train, args=(command(data)[2:], str(terminal or said_path(data)), arm))
    process.start()
    return process


def ran(data: Data, arm: Arm | None = None) -> int:
    """Train to the end, whichever that is; the exit status."""
    process = started(data, arm)
    process.join(SECONDS)
    status = process.exitcode
    if status is None:
        process.kill()
        process.join()
    assert status is not None, said(data)
    return status


def said_path(data: Data) -> Path:
    return Path(data["output_dir"]).with_suffix(".said")


def said(data: Data) -> str:
    """What the last run of an output folder wrote to its terminal."""
    return said_path(data).read_text(encoding="utf-8")


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
    """Kill this process just before its so-manieth change to a folder; with ``tally``, a file takes their number."""
    seen = 0

    def hook(name: str, values: tuple[Any, ...]) -> None:
        nonlocal seen
        changes = name in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate")
        changes = changes or (name == "open" and (values[1] or "r")[0] in "wax")
        if changes and isinstance(values[0], (str, os.PathLike)) and str(values[0]).startswith(folder):
            seen += 1
            if seen == event:
                os.kill(os.getpid(), signal.SIGKILL)
            if tally is not None:
                descriptor = os.open(tally, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.write(descriptor, str(seen).encode())
                os.close(descriptor)

    sys.addaudithook(hook)


def dying_at(data: Data, event: int) -> Arm:
    return partial(die_at, data["output_dir"], event)


def counted(data: Data) -> int:
    """Train undisturbed; how many changes to its folder that took."""
    tally = Path(data["output_dir"]).with_suffix(".tally")
    assert ran(data, partial(die_at, data["output_dir"], 0, str(tally))) == 0, said(data)
    return int(tally.read_text())


def check_half(output: Path, whole: Path, registry: Registry) -> None:
    """What a killed run left is finished only where it is the whole result; the registry takes no torn weights."""
    weights = manifest_of(whole).weights_sha256
    if output.exists() and (manifest := read_manifest(output)) is not None:
        check_unchanged(output, manifest)
        assert manifest.weights_sha256 == weights
    with suppress(AdapterError):
        assert weights_digest(registry.add("half", output).folder) == weights


def check_equal(output: Path, whole: Path) -> None:
    """Bit-equal weights, configuration and log."""
    one, other = manifest_of(output), manifest_of(whole)
    check_unchanged(output, one)
    assert weights_digest(output) == other.weights_sha256
    assert one.config_sha256 == other.config_sha256
    assert (one.kept_step, one.datasets, one.losses) == (other.kept_step, other.datasets, other.losses)
    assert steps_of(output) == steps_of(whole)

"""Train in separate processes, and read what a training run wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from trainers.store.manifest import AdapterManifest, read_manifest
from trainers.store.training_log import read_log

STEPS, BATCH = 40, 6
Data = dict[str, Any]
FEW_STEPS: Data = {"lora": {"rank": 8}, "max_steps": 8}
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]


def recipe_data(model: Path | str, output: Path, **changes: Any) -> Data:
    """Return the fields of a recipe for 40 steps on two toy datasets."""
    return {
        "model": str(model),
        "output_dir": str(output),
        "datasets": [{"spec": "toy/cross#n=50", "weight": 1}, {"spec": "toy/copy#n=50", "weight": 2}],
        "prompt": "compact-v0",
        "encoder": "MinimalGridEncoder()",
        "max_steps": STEPS,
        "batch_size": BATCH,
        "max_seq_len": 800,
        "too_long": "skip",
        "learning_rate": 1e-3,
        "save_steps": 7,
        "threads": 1,
        "lora": {"rank": 8, "dropout": 0.1},
        **changes,
    }


def train_command(data: Data, *options: str) -> list[str]:
    """Write a recipe file beside its output folder, and return the arguments of Python that train it."""
    path = Path(data["output_dir"]).with_suffix(".yaml")
    path.write_text(json.dumps(data), encoding="utf-8")  # JSON is YAML
    return ["-m", "harness.cli", "train", str(path), *options]


def run_python(arguments: list[str], timeout: float = 600) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments; kill it and its children after ``timeout`` seconds."""
    argv = [sys.executable, *arguments]
    with subprocess.Popen(argv, env=_env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            out, error = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            kill_tree(psutil.Process(process.pid))
            raise
    return subprocess.CompletedProcess(argv, process.returncode, out, error)


def kill_tree(process: psutil.Process) -> None:
    """Kill a process and all its children."""
    for one in [*process.children(recursive=True), process]:
        one.kill()


def train_adapter(data: Data) -> Path:
    """Train a recipe to the end and return the folder of its adapter."""
    done = run_python(train_command(data))
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def interrupt_training(
    arguments: list[str], output: Path, lines: int, stop: Callable[[psutil.Process], None]
) -> tuple[int, str]:
    """Start a training run, call ``stop`` when its log has ``lines`` lines, and wait for the process to end.

    Returns:
        Exit status and standard error.
    """
    log = output / "log.jsonl"
    old = log.stat().st_ino if log.exists() else None  # a resumed run replaces the log
    process = subprocess.Popen(
        [sys.executable, *arguments], env=_env(), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    started = time.monotonic()
    while process.poll() is None and (not log.exists() or log.stat().st_ino == old or _count_lines(log) < lines):
        assert time.monotonic() - started < 600
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()
    stop(psutil.Process(process.pid))
    error = process.communicate(timeout=300)[1]
    return process.returncode, error


def _count_lines(log: Path) -> int:
    return log.read_bytes().count(b"\n")


def log_steps(folder: Path) -> list[Data]:
    """Return the lines of a training log without their times."""
    return [{k: v for k, v in line.items() if k != "seconds"} for line in read_log(folder / "log.jsonl")]


def log_losses(folder: Path) -> list[float]:
    """Return the training loss of every step in a log."""
    return [line["loss"] for line in read_log(folder / "log.jsonl") if "loss" in line]


def adapter_manifest(folder: Path) -> AdapterManifest:
    """Return the manifest of a finished training run."""
    manifest = read_manifest(folder)
    assert manifest is not None
    return manifest


def last_error_line(text: str) -> str:
    """Return the last line of standard error, in which there must be no traceback."""
    assert "Traceback" not in text, text
    return text.strip().splitlines()[-1]


def _env() -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}

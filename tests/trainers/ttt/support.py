"""Recipes, tasks and processes for tests of test-time training."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.core.grid import Task
from harness.data.spec import open_dataset
from tests.support.training.train_runs import _env
from trainers.recipe.schema import Recipe
from trainers.recipe.ttt_recipe import make_ttt_recipe
from trainers.ttt.protocol import ReplyLine, StepLine, TaskLine, adapter_path, parse_output, write_recipe

FILES = ("adapter_config.json", "adapter_model.safetensors")


def tiny_recipe(**changes: Any) -> Recipe:
    """Return a recipe of three small steps on the tiny base, with dropout, so that the random state matters."""
    data: dict[str, Any] = {
        "model": "tiny",
        "prompt": "compact-v0",
        "encoder": "MinimalGridEncoder()",
        "batch_size": 4,
        "max_seq_len": 512,
        "learning_rate": 4e-3,
        "dtype": "float32",
        "threads": 1,
        "lora": {"rank": 4, "dropout": 0.1},
        "ttt": {"steps": 3},
    }
    return make_ttt_recipe({**data, **changes})


def cross_tasks(n: int) -> list[Task]:
    """Return tasks that the tiny base has not seen."""
    dataset = open_dataset(f"toy/cross/evaluation#n={n}")
    return [dataset.task(k) for k in range(n)]


def start_process(work: Path) -> subprocess.Popen[str]:
    """Start the process of test-time training in a work folder."""
    command = [sys.executable, "-m", "trainers.ttt", str(work)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=_env(), stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def train_lines(work: Path, recipe: Recipe, lines: Sequence[TaskLine]) -> list[StepLine | ReplyLine]:
    """Train tasks to the end and return everything that the process wrote."""
    write_recipe(work, recipe)
    with start_process(work) as process:
        out, error = process.communicate("".join(f"{line.model_dump_json()}\n" for line in lines), timeout=300)
    assert process.returncode == 0, error
    return [parse_output(line) for line in out.splitlines()]


def replies(output: Sequence[StepLine | ReplyLine]) -> list[ReplyLine]:
    """Return the replies among the lines of a process."""
    return [line for line in output if isinstance(line, ReplyLine)]


def adapter_bytes(work: Path, task_id: str) -> list[bytes]:
    """Return the content of a task's adapter files."""
    return [(adapter_path(work, task_id) / name).read_bytes() for name in FILES]


def manifest_of(work: Path, task_id: str) -> dict[str, Any]:
    """Return the manifest of a task's adapter."""
    data: dict[str, Any] = json.loads((adapter_path(work, task_id) / "manifest.json").read_text(encoding="utf-8"))
    return data

"""Write predictions of a simulated model for ARC-AGI-1's evaluation tasks, in our format and in arc24's two."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orjson

from harness.core.grid import Grid, Task
from harness.data.dataset import iterate_tasks
from harness.data.spec import open_dataset

SPEC = "arc1/evaluation"
POPULAR = 12
"""Wrong grids that many predictions of a test output share."""


def load_tasks() -> list[Task]:
    """Return the tasks in order."""
    return list(iterate_tasks(open_dataset(SPEC)))


def variants(truth: Grid, count: int, rng: np.random.Generator) -> list[list[list[int]]]:
    """Return the exact grid, then wrong ones with three changed cells, every fifth of another shape."""
    grids = [truth.to_rows()]
    for i in range(1, count):
        rows = truth.to_rows()
        for _ in range(3):
            rows[rng.integers(truth.height)][rng.integers(truth.width)] = int(rng.integers(10))
        grids.append(rows[:-1] if i % 5 == 0 and len(rows) > 1 else rows)
    return grids


def answers(total: int) -> Iterator[tuple[str, int, int, list[list[int]], float]]:
    """Yield (task, test, sample, grid or [], log-probability) of a simulated model: 13 % exact, 34 % of tasks found."""
    rng = np.random.default_rng(5)
    tasks = load_tasks()
    n = math.ceil(total / sum(len(task.test) for task in tasks))
    for task in tasks:
        chance = 0.0 if rng.random() < 0.525 else rng.beta(0.3, 0.8)
        for index, pair in enumerate(task.test):
            assert pair.output is not None
            grids = variants(pair.output, 1 + POPULAR + n // 8, rng)
            for sample in range(n):
                draw = rng.random()
                if draw < chance:
                    grid = grids[0]
                elif draw < chance + 0.05:
                    grid = []
                else:
                    place = int(rng.zipf(1.5))
                    grid = grids[place if place <= POPULAR else int(rng.integers(1, len(grids)))]
                yield task.id, index, sample, grid, round(-float(rng.exponential(5)), 6)


def write_lines(path: Path, total: int) -> None:
    """Write our predictions.jsonl, about a kilobyte per line."""
    views = ("identity", "rot90", "rot180", "rot270", "flip_lr", "flip_ud", "transpose", "anti_transpose")
    with path.open("wb") as file:
        for task, index, sample, grid, logprob in answers(total):
            text = "\n".join(f"{i} {''.join(map(str, row))}" for i, row in enumerate(grid, 1))
            view = {"symmetry": views[sample % 8], "colours": [0, 2, 1, 3, 4, 5, 6, 7, 9, 8], "order": [0, 1, 2]}
            line = {
                "model": "m", "task_id": task, "test_index": index, "sample_index": sample, "augmentation": view,
                "outcome": "grid" if grid else "unparsed", "grid": grid or None, "text": text,
                "cumulative_logprob": logprob, "n_tokens": 200, "finish_reason": "stop", "seed": sample, "seconds": 0.2,
            }  # fmt: skip
            file.write(orjson.dumps(line) + b"\n")


def write_task_results(path: Path, total: int) -> None:
    """Write arc24's ``*_task_results.json``: one list, with prompts of 2,000 characters."""
    with path.open("wb") as file:
        for place, (task, index, sample, grid, logprob) in enumerate(answers(total)):
            entry = {
                "task_id": task, "data_augmentation_kwargs": {"hflip": bool(sample % 2), "n_rot90": sample // 2 % 4},
                "prompt": "x" * 2_000, "idx": index, "grid": grid, "response": "y" * 200,
                "cumulative_logprob": logprob, "n_tokens": 200,
            }  # fmt: skip
            file.write((b"[" if place == 0 else b", ") + orjson.dumps(entry))
        file.write(b"]")


def write_attempts(path: Path, total: int) -> None:
    """Write arc24's plain predictions: ``{id: [{attempt_1: grid, ...}, ...]}``."""
    tasks: dict[str, list[dict[str, object]]] = defaultdict(list)
    with path.open("wb") as file:
        for task, index, sample, grid, _ in answers(total):
            if index == len(tasks[task]):
                tasks[task].append({})
            tasks[task][index][f"attempt_{sample + 1}"] = grid
        file.write(orjson.dumps(tasks))

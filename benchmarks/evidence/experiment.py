"""The experiment behind docs/candidates.md: half-trained adapters, and the same tasks sampled in several ways."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from harness.cli.workflows.steps import run_bench
from harness.core.grid import Task

SEED = 19
PROMPT, ENCODER = "compact-v0", "MinimalGridEncoder()"
REAL = "real"
"""The data set of real tasks; the others are families of generated tasks."""
RESCORED_VIEWS = 8


@dataclass(frozen=True)
class Adapter:
    """A half-trained adapter: what it is trained on and for how many steps."""

    data: str
    steps: int

    @property
    def name(self) -> str:
        """Return the name under which it is served."""
        return f"{self.data}-{self.steps}"


@dataclass(frozen=True)
class Draw:
    """A way to sample the views of a task."""

    name: str
    views: int
    options: tuple[str, ...]


SAMPLED = Draw("sample", 8, ("--temperature", "1"))
SAMPLED_MORE = Draw("sample-32", 32, ("--temperature", "1"))
DFS = Draw("dfs-0.1", 8, ("--search", "dfs", "--min-prob", "0.1"))
DFS_GREEDY = Draw("dfs-0.1-greedy", 8, (*DFS.options, "--keep-greedy"))
DFS_DEEP = Draw("dfs-0.02", 8, ("--search", "dfs", "--min-prob", "0.02"))
RESCORED_RUNS = (DFS, SAMPLED)
REAL_DRAWS = (DFS, DFS_GREEDY, SAMPLED)
"""Of the real tasks, whose prompts are long."""
DRAWS = (DFS, DFS_GREEDY, SAMPLED, SAMPLED_MORE, DFS_DEEP)


@dataclass(frozen=True)
class Extent:
    """How much is trained and sampled.

    Attributes:
        toy: steps of the adapters of each family of generated tasks.
        real_steps: steps of the adapters of the real tasks.
        tasks: tasks of each family.
        real_tasks: real tasks, the smallest.
    """

    toy: tuple[tuple[str, tuple[int, ...]], ...] = (("cross", (8, 12, 20)), ("diagonal", (8, 12, 20)))
    real_steps: tuple[int, ...] = (20, 60)
    tasks: int = 40
    real_tasks: int = 20

    @property
    def adapters(self) -> tuple[Adapter, ...]:
        """Return all adapters."""
        toy = (Adapter(family, steps) for family, many in self.toy for steps in many)
        return (*toy, *(Adapter(REAL, steps) for steps in self.real_steps))

    @property
    def data(self) -> tuple[str, ...]:
        """Return the data sets."""
        return (*(family for family, _ in self.toy), *([REAL] if self.real_steps else []))


QUICK = Extent((("cross", (8, 20)),), (4,), tasks=12, real_tasks=4)


def run_folder(work: Path, data: str, draw: Draw) -> Path:
    """Return the folder of a run."""
    return work / "runs" / f"{data}-{draw.name}"


def has_results(work: Path, data: str, draw: Draw) -> bool:
    """Return whether a run is finished and scored."""
    return (run_folder(work, data, draw) / "results.json").exists()


def small_tasks(count: int) -> list[Task]:
    """Return the evaluation tasks of ARC-AGI-1 with the fewest cells in all their grids, smallest first."""
    from harness.data.dataset import iterate_tasks
    from harness.data.spec import open_dataset

    def size(task: Task) -> tuple[int, str]:
        grids = [grid for pair in (*task.train, *task.test) for grid in (pair.input, pair.output) if grid]
        return sum(len(grid.cells) for grid in grids), task.id

    return sorted(iterate_tasks(open_dataset("arc1/evaluation")), key=size)[:count]


def prepare_real_tasks(work: Path, count: int) -> None:
    """Write the ids of the real tasks, and their train pairs without any test pair as a data set for training."""
    tasks = small_tasks(count)
    (work / "real-ids.txt").write_text("\n".join(task.id for task in tasks) + "\n", encoding="utf-8")
    pairs = {
        task.id: {
            "train": [
                {"input": pair.input.to_rows(), "output": pair.output.to_rows()} for pair in task.train if pair.output
            ],
            "n_train": len(task.train) - 1,
        }
        for task in tasks
    }
    (work / "real-train.json").write_text(json.dumps(pairs), encoding="utf-8")


def train(work: Path, adapter: Adapter) -> Path:
    """Train an adapter, which ``bench train`` skips if it is done, and return its folder."""
    real = adapter.data == REAL
    folder = work / "trained" / adapter.name
    recipe = {
        "model": "tiny",
        "output_dir": str(folder),
        "datasets": [str(work / "real-train.json") if real else f"toy/{adapter.data}#n=2000"],
        "prompt": PROMPT,
        "encoder": ENCODER,
        "lora": {"rank": 16, "alpha": 32},
        "max_steps": adapter.steps,
        "batch_size": 8 if real else 16,
        "max_seq_len": 2048,
        "learning_rate": 4e-3,
        "dtype": "float32",
        "seed": SEED,
        "threads": 1,
    }
    path = work / "recipes" / f"{adapter.name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    run_bench("train", str(path))
    return folder


def dataset(work: Path, data: str, extent: Extent) -> str:
    """Return the spec of the tasks that are asked."""
    return f"arc1/evaluation#ids={work / 'real-ids.txt'}" if data == REAL else f"toy/{data}/evaluation#n={extent.tasks}"


def missing_steps(work: Path, extent: Extent) -> Iterator[tuple[str, Draw, Literal["run", "rescore"]]]:
    """Yield the runs without results, each followed by its rescoring if that was not completed."""
    for draw in DRAWS:
        for data in (data for data in extent.data if data != REAL or draw in REAL_DRAWS):
            if not has_results(work, data, draw):
                yield data, draw, "run"
            if draw in rescored_draws(data) and not is_rescored(work, data, draw):
                yield data, draw, "rescore"


def sample(work: Path, url: str, data: str, draw: Draw, extent: Extent) -> None:
    """Make one run with all adapters of its data set."""
    folder = run_folder(work, data, draw)
    models = [word for adapter in extent.adapters if adapter.data == data for word in ("--model", adapter.name)]
    settings = ("--prompt", PROMPT, "--grid-encoder", ENCODER, "--seed", str(SEED), "--max-tokens", "160")
    resume = ["--resume"] if folder.exists() else []
    spec = dataset(work, data, extent)
    words = ("run", "--server", url, *models, "--dataset", spec, "-n", str(draw.views), *settings, *draw.options)
    run_bench(*words, "--out", str(folder), *resume)


def rescored_draws(data: str) -> tuple[Draw, ...]:
    """Return the ways to sample whose candidates are rescored.

    No answer to a real task reaches the threshold, so that only the greedy answers of its views are candidates.
    """
    return (DFS_GREEDY, SAMPLED) if data == REAL else RESCORED_RUNS


def is_rescored(work: Path, data: str, draw: Draw) -> bool:
    """Return whether the candidates of a run were all rescored."""
    return _rescored_marker(work, data, draw).exists()


def _rescored_marker(work: Path, data: str, draw: Draw) -> Path:
    return work / "runs" / f"{data}-{draw.name}.rescored"


def rescore(work: Path, url: str, data: str, draw: Draw) -> None:
    """Rescore every candidate of a run under the fixed views; it is skipped if it is done."""
    run_bench("rescore", str(run_folder(work, data, draw)), "--server", url, "--views", str(RESCORED_VIEWS))
    _rescored_marker(work, data, draw).touch()


def register(work: Path, folders: Sequence[tuple[Adapter, Path]]) -> Path:
    """Add the adapters to a new registry and return its folder."""
    registry = work / "registry"
    shutil.rmtree(registry, ignore_errors=True)
    for adapter, folder in folders:
        run_bench("adapters", "add", adapter.name, str(folder), "--adapters", str(registry))
    return registry

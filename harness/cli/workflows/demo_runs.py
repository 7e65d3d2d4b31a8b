"""The runs of ``bench demo``: what is asked of which models, and what each finished run must have recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.cli.workflows.existing_run import ExpectedRun, adapter_hashes, base_hashes
from harness.core.grid import Task
from harness.runs.schemas.task_training import TttConfig

SEED = 7
VIEWS = 8
PROMPT = "compact-v0"
ENCODER = "MinimalGridEncoder()"
TTT_MODEL = "ttt"
"""Name of the model of the runs with test-time training."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the demo.

    Attributes:
        base_only: asked of the base, and of no adapter.
        max_tokens: None means the default of ``bench run``.
        recipe: recipe of a run with test-time training; None for ``bench run``.
    """

    folder: Path
    spec: str
    base_only: bool = False
    max_tokens: int | None = None
    recipe: Path | None = None


NEW_FAMILIES = ("cross", "diagonal")
KNOWN_FAMILIES = ("copy", "border", "corners", "edge", "recolour")
UNSEEN_FAMILY = "centre"
"""Neither the base nor an adapter of the demo was trained on it."""
ARC_TOKENS = 64
"""Enough for the small grids of the ARC-AGI-1 tasks; the tiny base often does not stop before the limit."""
TTT_STEPS = 30
"""Training steps of a task: 8 CPU-seconds for a task of the family, a little more for a real one."""
TTT_REAL_TASKS = 3
"""Those with the fewest cells of the SMALLEST_ANSWERS evaluation tasks with the smallest test outputs."""
SMALLEST_ANSWERS = 20


def list_runs(out: Path, tasks: int) -> list[Run]:
    """Return every run of the demo.

    Args:
        tasks: tasks of each new family.
    """
    bench = out / "bench"
    new = [Run(bench / name, f"toy/{name}/evaluation#n={tasks}") for name in NEW_FAMILIES]
    known = [Run(bench / name, f"toy/{name}/evaluation#n={tasks // 2}") for name in KNOWN_FAMILIES]
    ids = _write_ids(out / "arc1-small-answers.txt", _small_tasks(tasks // 2))
    real = Run(bench / "arc1", f"arc1/evaluation#ids={ids}", max_tokens=ARC_TOKENS)
    return [*new, *known, real, *_before_and_after(out, max(2, tasks // 5))]


def _before_and_after(out: Path, tasks: int) -> list[Run]:
    """Return the runs of the base without and with test-time training, on the unseen family and a few real tasks."""
    cheapest = sorted(_small_tasks(SMALLEST_ANSWERS), key=lambda task: (_cells(task), task.id))[:TTT_REAL_TASKS]
    recipe = _write_recipe(out)
    ids = _write_ids(out / "arc1-test-time.txt", cheapest)
    runs = []
    for name, spec, limit in (
        (UNSEEN_FAMILY, f"toy/{UNSEEN_FAMILY}/evaluation#n={tasks}", None),
        ("arc1", f"arc1/evaluation#ids={ids}", ARC_TOKENS),
    ):
        runs.append(Run(out / "bench" / f"{name}-before", spec, base_only=True, max_tokens=limit))
        runs.append(Run(out / "bench" / f"{name}-ttt", spec, base_only=True, max_tokens=limit, recipe=recipe))
    return runs


def _write_recipe(out: Path) -> Path:
    """Write the recipe by which each task is trained, and return its path."""
    import yaml

    content = {
        "model": "tiny",
        "prompt": PROMPT,
        "encoder": ENCODER,
        "lora": {"rank": 16, "alpha": 32},
        "batch_size": 8,
        "max_seq_len": 2048,
        "learning_rate": 4e-3,
        "warmup": 5,
        "dtype": "float32",
        "seed": SEED,
        "threads": 1,
        "ttt": {"leave_out": 1, "steps": TTT_STEPS},
    }
    path = out / "recipes" / "test-time.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def _small_tasks(count: int) -> list[Task]:
    """Return the ARC-AGI-1 evaluation tasks with the smallest test outputs."""
    from harness.data.dataset import iterate_tasks
    from harness.data.spec import open_dataset

    def size(task: Task) -> tuple[int, int, str]:
        return max(len(p.output.cells) for p in task.test if p.output), _cells(task), task.id

    return sorted(iterate_tasks(open_dataset("arc1/evaluation")), key=size)[:count]


def _cells(task: Task) -> int:
    """Return the number of cells of all grids of a task."""
    grids = [grid for pair in (*task.train, *task.test) for grid in (pair.input, pair.output) if grid]
    return sum(len(grid.cells) for grid in grids)


def _write_ids(path: Path, tasks: Sequence[Task]) -> Path:
    """Write the ids of tasks to a file, one per line, and return its path."""
    path.write_text("\n".join(task.id for task in tasks) + "\n", encoding="utf-8")
    return path


def expected_run(run: Run, adapters: Sequence[Path]) -> ExpectedRun:
    """Return the settings that a finished run must have, with the weights that were trained last."""
    from trainers.tiny.train import shipped_path

    config = None
    hashes = {shipped_path().name: base_hashes(shipped_path())}
    if run.recipe is not None:
        config, hashes = _ttt_config(run.recipe), {TTT_MODEL: frozenset()}
    elif not run.base_only:
        hashes |= {path.name: adapter_hashes(path) for path in adapters}
    return ExpectedRun(hashes, run.spec, VIEWS, SEED, PROMPT, ENCODER, run.max_tokens, config)


def _ttt_config(recipe: Path) -> TttConfig:
    """Return what a run with test-time training records of its recipe."""
    import orjson

    from trainers.model.base_model import base_digest
    from trainers.recipe.ttt_recipe import load_ttt_recipe, task_values
    from trainers.tiny.train import shipped_path

    values = orjson.loads(orjson.dumps(task_values(load_ttt_recipe(recipe))))
    return TttConfig(recipe=values, base=base_digest(shipped_path()), start=None)


def run_words(run: Run, models: Sequence[str], site: Sequence[str]) -> list[str]:
    """Return the words of the command that makes a run, without ``bench``, ``--out`` and ``--resume``.

    Args:
        models: names of the base and the adapters on the server, the base first.
        site: options that name the server, and for test-time training its registry.
    """
    settings = ["--dataset", run.spec, "-n", str(VIEWS), "--seed", str(SEED)]
    settings += ["--max-tokens", str(run.max_tokens)] if run.max_tokens else []
    if run.recipe is not None:  # which has prompt and encoder
        return ["ttt", str(run.recipe), *site, *settings, "--name", TTT_MODEL]
    asked = models[:1] if run.base_only else models
    prompting = ["--prompt", PROMPT, "--grid-encoder", ENCODER]
    return ["run", *site, *(word for name in asked for word in ("--model", name)), *settings, *prompting]

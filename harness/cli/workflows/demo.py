"""The command ``bench demo``: train, serve, bench and report on the tiny base, with the commands that users type."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from harness.cli.workflows.existing_run import (
    ExpectedRun,
    adapter_hashes,
    base_hashes,
    is_finished,
    resume_or_move_aside,
)
from harness.cli.workflows.steps import print_command, run_bench, sigterm_as_interrupt
from harness.core.grid import Task

MARKER = "demo.json"
SEED = 7
VIEWS = 8
PROMPT = "compact-v0"
ENCODER = "MinimalGridEncoder()"


@dataclass(frozen=True, slots=True)
class DemoAdapter:
    """One adapter of the demo: its name, the toy families it is trained on, and the training steps."""

    name: str
    families: tuple[str, ...]
    steps: int


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the demo; ``max_tokens`` None means the default of ``bench run``."""

    folder: Path
    spec: str
    max_tokens: int | None = None


ADAPTERS = (
    DemoAdapter("cross", ("cross",), 40),
    DemoAdapter("diagonal", ("diagonal",), 40),
    DemoAdapter("mix", ("cross", "diagonal"), 80),
)
NEW_FAMILIES = ("cross", "diagonal")
KNOWN_FAMILIES = ("copy", "border", "corners", "edge", "recolour")
ARC_TOKENS = 64
"""Enough for the small grids of the ARC-AGI-1 tasks; the tiny base often does not stop before the limit."""

_GO_ON = """\
## Next steps

- Look at what was made: `{out}/recipes` (what was trained), `{out}/trained` (adapters with their cards),
  `{out}/adapters` (the registry that the server reads), `{out}/bench` (every prediction), `{out}/server.log`.
- Change a recipe and train it: `bench train {out}/recipes/mix.yaml --set max_steps=300 -o runs/mine/mix`.
- Serve and ask by hand: `bench serve $(bench tiny-base --path) --adapters {out}/adapters`, then any OpenAI client.
- The same with a real model on a GPU: in a recipe, `model: Qwen/Qwen2.5-0.5B-Instruct`, `datasets: [arc1/training]`,
  `prompt: output-from-examples-v1`; then `bench serve Qwen/Qwen2.5-0.5B-Instruct --adapters adapters` and
  `bench run --dataset arc1/evaluation -n 32`.
"""


@click.command()
@click.option(
    "-o", "--out", type=click.Path(file_okay=False, path_type=Path), default=Path("runs/demo"), show_default=True
)
@click.option("--fresh", is_flag=True, help="Delete the folder of an earlier demo and start over.")
@click.option("--port", type=int, help="Port of the server; by default a free one.")
@click.option(
    "--tasks",
    type=click.IntRange(4),
    default=40,
    show_default=True,
    help="Tasks of each new family; half as many of each known family and of ARC-AGI-1.",
)
def demo(out: Path, fresh: bool, port: int | None, tasks: int) -> None:
    """Run the whole loop on the tiny base: train three adapters, serve, hot-swap, bench, compare, report.

    Every step is a command that is printed before it runs. Finished steps are skipped.

    \b
    bench demo
    bench demo --fresh --out runs/demo
    """
    started = time.monotonic()
    _prepare(out, fresh)
    with sigterm_as_interrupt():
        adapters = [_train(out, adapter) for adapter in ADAPTERS]
        runs = _runs(out, tasks)
        if unfinished := [run for run in runs if not is_finished(run.folder, _expected_run(run, adapters))]:
            _serve_and_run(out, adapters, unfinished, port)
        report = out / "report.md"
        run_bench(
            "report",
            *(str(run.folder) for run in runs),
            "-o",
            str(report),
            "--title",
            "arc-bench demo",
            "--training",
            str(out / "trained"),
            "--closing",
            str(_closing(out)),
        )
    click.echo(f"\ndone in {time.monotonic() - started:.0f} s; read {report}")


def _prepare(out: Path, fresh: bool) -> None:
    """Create the demo's folder; with ``fresh``, delete an earlier demo's folder first.

    Raises:
        click.UsageError: the folder is not empty, and no demo wrote it.
    """
    marker = out / MARKER
    if out.exists() and any(out.iterdir()) and not marker.exists():
        raise click.UsageError(f"{out} is not empty and no demo made it; name another folder with --out")
    if fresh and out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    marker.write_text('{"made_by": "bench demo"}\n')


def _train(out: Path, adapter: DemoAdapter) -> Path:
    """Write the recipe of an adapter and train it, which ``bench train`` skips if it is done; return its folder."""
    import yaml

    recipe = out / "recipes" / f"{adapter.name}.yaml"
    folder = out / "trained" / adapter.name
    content = {
        "model": "tiny",
        "output_dir": str(folder),
        "datasets": [{"spec": f"toy/{family}#n=2000", "weight": 1.0} for family in adapter.families],
        "prompt": PROMPT,
        "encoder": ENCODER,
        "lora": {"rank": 16, "alpha": 32},
        "max_steps": adapter.steps,
        "batch_size": 16,
        "learning_rate": 4e-3,
        "dtype": "float32",
        "seed": SEED,
        "threads": 1,
    }
    recipe.parent.mkdir(parents=True, exist_ok=True)
    recipe.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    run_bench("train", str(recipe))
    return folder


def _runs(out: Path, tasks: int) -> list[Run]:
    """Return every run of the demo."""
    bench = out / "bench"
    new = [Run(bench / name, f"toy/{name}/evaluation#n={tasks}") for name in NEW_FAMILIES]
    known = [Run(bench / name, f"toy/{name}/evaluation#n={tasks // 2}") for name in KNOWN_FAMILIES]
    real = Run(bench / "arc1", f"arc1/evaluation#ids={_small_tasks(out, tasks // 2)}", ARC_TOKENS)
    return [*new, *known, real]


def _small_tasks(out: Path, count: int) -> Path:
    """Write the ids of the ARC-AGI-1 evaluation tasks with the smallest test outputs to a file; return its path."""
    from harness.data.dataset import iterate_tasks
    from harness.data.spec import open_dataset

    def size(task: Task) -> tuple[int, int, str]:
        grids = [grid for pair in (*task.train, *task.test) for grid in (pair.input, pair.output) if grid]
        return max(len(p.output.cells) for p in task.test if p.output), sum(len(g.cells) for g in grids), task.id

    path = out / "arc1-small-answers.txt"
    ids = [task.id for task in sorted(iterate_tasks(open_dataset("arc1/evaluation")), key=size)[:count]]
    path.write_text("\n".join(ids) + "\n", encoding="utf-8")
    return path


def _expected_run(run: Run, adapters: Sequence[Path]) -> ExpectedRun:
    """Return the settings that a finished run must have, with the weights that were trained last."""
    from trainers.tiny.train import shipped_path

    hashes = {
        shipped_path().name: base_hashes(shipped_path()),
        **{path.name: adapter_hashes(path) for path in adapters},
    }
    return ExpectedRun(hashes, run.spec, VIEWS, SEED, PROMPT, ENCODER, run.max_tokens)


def _serve_and_run(out: Path, adapters: Sequence[Path], runs: Sequence[Run], port: int | None) -> None:
    """Start one server with the base only, load every adapter while it runs, and sample the runs."""
    from serve.launch.process import serving
    from trainers.tiny.train import shipped_path

    registry = out / "adapters"
    print_command("serve", str(shipped_path()), "--adapters", str(registry))
    with serving(
        shipped_path(), registry, log=out / "server.log", port=port, progress=click.echo, dtype="exact"
    ) as server:
        click.echo(f"serving at {server.url}")
        for adapter, folder in zip(ADAPTERS, adapters, strict=True):
            run_bench("adapters", "add", adapter.name, str(folder), "--adapters", str(registry))
            run_bench("adapters", "load", adapter.name, "--server", server.url)
        models = [
            word
            for name in (shipped_path().name, *(adapter.name for adapter in ADAPTERS))
            for word in ("--model", name)
        ]
        for run in runs:
            settings = ["--prompt", PROMPT, "--grid-encoder", ENCODER, "-n", str(VIEWS), "--seed", str(SEED)]
            limit = ["--max-tokens", str(run.max_tokens)] if run.max_tokens else []
            resume = ["--resume"] if resume_or_move_aside(run.folder, _expected_run(run, adapters)) else []
            where = ["--out", str(run.folder), *resume]
            run_bench("run", "--server", server.url, *models, "--dataset", run.spec, *settings, *limit, *where)


def _closing(out: Path) -> Path:
    """Write the last section of the report, on what to try next, to a file, and return its path."""
    path = out / "how-to-go-on.md"
    path.write_text(_GO_ON.format(out=out), encoding="utf-8")
    return path

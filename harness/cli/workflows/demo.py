"""The command ``bench demo``: train, serve, bench and report on the tiny base, with the commands that users type."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from harness.cli.workflows.demo_runs import ENCODER, PROMPT, SEED, Run, expected_run, list_runs, run_words
from harness.cli.workflows.existing_run import is_finished, resume_or_move_aside
from harness.cli.workflows.steps import print_command, run_bench, sigterm_as_interrupt

MARKER = "demo.json"


@dataclass(frozen=True, slots=True)
class DemoAdapter:
    """One adapter of the demo: its name, the toy families it is trained on, and the training steps."""

    name: str
    families: tuple[str, ...]
    steps: int


ADAPTERS = (
    DemoAdapter("cross", ("cross",), 40),
    DemoAdapter("diagonal", ("diagonal",), 40),
    DemoAdapter("mix", ("cross", "diagonal"), 80),
)

_GO_ON = """\
## Next steps

- Look at what was made: `{out}/recipes` (what was trained), `{out}/trained` (adapters with their cards),
  `{out}/adapters` (the registry that the server reads), `{out}/bench` (every prediction), `{out}/server.log`.
- Change a recipe and train it: `bench train {out}/recipes/mix.yaml --set max_steps=300 -o runs/mine/mix`.
- Serve and ask by hand: `bench serve $(bench tiny-base --path) --adapters {out}/adapters`, then any OpenAI client.
- An adapter for each of 40 tasks:
  `bench ttt examples/ttt-tiny.yaml --dataset toy/centre/evaluation#n=40 -n 8 --out runs/ttt`.
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
    help="Tasks of each new family; half as many of each known one and of ARC-AGI-1, a fifth with test-time training.",
)
def demo(out: Path, fresh: bool, port: int | None, tasks: int) -> None:
    """Run the whole loop on the tiny base: train three adapters, serve, hot-swap, bench, compare, report.

    At the end, test-time training: an adapter for each task of a family on which nothing here was trained, and for each
    of three real tasks. Every step is a command that is printed before it runs. Finished steps are skipped.

    \b
    bench demo
    bench demo --fresh --out runs/demo
    """
    started = time.monotonic()
    _prepare(out, fresh)
    with sigterm_as_interrupt():
        adapters = [_train(out, adapter) for adapter in ADAPTERS]
        runs = list_runs(out, tasks)
        if unfinished := [run for run in runs if not is_finished(run.folder, expected_run(run, adapters))]:
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


def _serve_and_run(out: Path, adapters: Sequence[Path], runs: Sequence[Run], port: int | None) -> None:
    """Start one server with the base only, load every adapter while it runs, and make the runs.

    On a GPU test-time training has a server of its own, started when the task adapters are trained: trainer and server
    would share the GPU's memory otherwise.
    """
    from serve.launch.machine import detect_machine
    from serve.launch.process import serving
    from trainers.tiny.train import shipped_path

    registry, models = out / "adapters", [shipped_path().name, *(adapter.name for adapter in ADAPTERS)]
    alone = [run for run in runs if run.recipe is not None and detect_machine().device == "cuda"]
    if together := [run for run in runs if run not in alone]:
        print_command("serve", str(shipped_path()), "--adapters", str(registry))
        with serving(
            shipped_path(), registry, log=out / "server.log", port=port, progress=click.echo, dtype="exact"
        ) as server:
            click.echo(f"serving at {server.url}")
            for adapter, folder in zip(ADAPTERS, adapters, strict=True):
                run_bench("adapters", "add", adapter.name, str(folder), "--adapters", str(registry))
                run_bench("adapters", "load", adapter.name, "--server", server.url)
            for run in together:
                site = ["--server", server.url, *(["--adapters", str(registry)] if run.recipe else [])]
                _make_run(run, adapters, run_words(run, models, site))
    for run in alone:
        _make_run(run, adapters, run_words(run, models, []))


def _make_run(run: Run, adapters: Sequence[Path], words: Sequence[str]) -> None:
    """Make a run, or resume it where its folder holds a part of it."""
    resume = ["--resume"] if resume_or_move_aside(run.folder, expected_run(run, adapters)) else []
    run_bench(*words, "--out", str(run.folder), *resume)


def _closing(out: Path) -> Path:
    """Write the last section of the report, on what to try next, to a file, and return its path."""
    path = out / "how-to-go-on.md"
    path.write_text(_GO_ON.format(out=out), encoding="utf-8")
    return path

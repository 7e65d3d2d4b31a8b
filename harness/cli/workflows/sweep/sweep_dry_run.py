"""What ``bench sweep --dry-run`` prints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import click
import orjson

from trainers.run.progress import format_duration
from trainers.store.manifest import MANIFEST

if TYPE_CHECKING:
    from harness.cli.workflows.sweep.sweep_file import Sweep


def describe_sweep(plan: Sweep) -> None:
    """Print what the sweep trains and benches, and how much of it is done."""
    trainings = list(plan.trainings())
    trained: list[Path] = []
    settings = {name: row.label for row in plan.record().rows for name in row.models}
    for training in trainings:
        recipe, folder = training.recipe, Path(training.recipe.output_dir)
        total = sum(part.weight or 0 for part in recipe.datasets)
        parts = ", ".join(
            part.spec if part.weight is None else f"{part.weight / total:.1%} {part.spec}" for part in recipe.datasets
        )
        is_trained = recipe.resume and (folder / MANIFEST).exists()
        trained += [folder] * is_trained
        done = "trained" if is_trained else f"{recipe.max_steps} steps"
        label = f" ({settings[training.name]})" if plan.axes or plan.cells else ""
        click.echo(f"{training.name}{label}: {parts}; seed {recipe.seed}; {done}")
    click.echo(f"each benched with {plan.evaluation.n} predictions an output on {plan.evaluation.dataset}")
    rows, seeds = len(plan.table_rows()), len(plan.seeds)
    click.echo(
        f"{rows} row{'s' * (rows != 1)} with {seeds} seed{'s' * (seeds != 1)} each: {len(trainings)} to train, "
        f"{len(trained)} of them trained"
    )
    if missing := len(trainings) - len(trained):
        click.echo(_time(trained, missing))


def _time(trained: Sequence[Path], missing: int) -> str:
    """Return how long the missing trainings take, one after the other, judged by those that are finished."""
    seconds = [manifest["seconds"] for manifest in map(_read_manifest, trained) if "seconds" in manifest]
    if not seconds:
        return "time to train: shown here when one adapter is trained; --row 0 trains the first alone"
    return (
        f"time to train: {format_duration(fmean(seconds))} each (mean of {len(seconds)}), so about "
        f"{format_duration(fmean(seconds) * missing)} for the other {missing}, one after the other"
    )


def _read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a trained adapter, of any version."""
    try:
        manifest = orjson.loads((folder / MANIFEST).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return {}  # the sweep itself refuses it, and says why
    return manifest if isinstance(manifest, dict) else {}

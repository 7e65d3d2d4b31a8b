"""What ``bench sweep --dry-run`` prints."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

import click
import orjson

from trainers.run.progress import format_duration
from trainers.store.manifest import MANIFEST

if TYPE_CHECKING:
    from harness.cli.workflows.sweep.sweep_file import Sweep


def describe_sweep(plan: Sweep) -> None:
    """Print what the sweep trains and benches, how much of it is done, and how long training the rest takes."""
    trainings, trained, missing_steps = list(plan.trainings()), 0, 0
    settings = {name: row.label for row in plan.record().rows for name in row.models}
    for training in trainings:
        recipe = training.recipe
        total = sum(part.weight or 0 for part in recipe.datasets)
        parts = ", ".join(
            part.spec if part.weight is None else f"{part.weight / total:.1%} {part.spec}" for part in recipe.datasets
        )
        is_trained = recipe.resume and (Path(recipe.output_dir) / MANIFEST).exists()
        trained += is_trained
        missing_steps += 0 if is_trained else recipe.max_steps
        done = "trained" if is_trained else f"{recipe.max_steps} steps"
        label = f" ({settings[training.name]})" if plan.axes or plan.cells else ""
        click.echo(f"{training.name}{label}: {parts}; seed {recipe.seed}; {done}")
    click.echo(f"each benched with {plan.evaluation.n} predictions an output on {plan.evaluation.dataset}")
    rows, seeds = len(plan.table_rows()), len(plan.seeds)
    click.echo(
        f"{rows} row{'s' * (rows != 1)} with {seeds} seed{'s' * (seeds != 1)} each: {len(trainings)} to train, "
        f"{trained} of them trained"
    )
    if missing_steps:
        click.echo(_time([Path(training.recipe.output_dir) for training in trainings], missing_steps))


def _time(folders: Sequence[Path], missing_steps: int) -> str:
    """Return how long the missing steps take, judged by the trainings that are finished."""
    finished = list(filter(None, map(_steps_and_seconds, folders)))
    if not finished:
        return "time to train: shown here when one adapter is trained; --row 0 trains the first alone"
    step = sum(seconds for _, seconds in finished) / sum(steps for steps, _ in finished)
    return (
        f"time to train: about {format_duration(step * missing_steps)} one after the other, at {step:.3g} s a step "
        f"(mean of {len(finished)} trained); the predictions come on top"
    )


def _steps_and_seconds(folder: Path) -> tuple[int, float] | None:
    """Return the steps of a finished training and the seconds that they took; None if its manifest does not say so."""
    try:
        manifest = orjson.loads((folder / MANIFEST).read_bytes())
        steps, seconds = int(manifest["steps"]), float(manifest["seconds"])
    except (OSError, ValueError, TypeError, KeyError):
        return None  # what is wrong with it the sweep itself says
    return (steps, seconds) if steps > 0 and 0 < seconds < inf else None

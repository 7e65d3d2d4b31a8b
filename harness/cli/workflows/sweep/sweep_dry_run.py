"""What ``bench sweep --dry-run`` prints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from harness.cli.workflows.sweep.sweep_file import Sweep


def describe_sweep(plan: Sweep) -> None:
    """Print what the sweep trains and benches, and how much of it is done."""
    trainings, trained = list(plan.trainings()), 0
    settings = {name: row.label for row in plan.record().rows for name in row.models}
    for training in trainings:
        recipe = training.recipe
        total = sum(part.weight or 0 for part in recipe.datasets)
        parts = ", ".join(
            part.spec if part.weight is None else f"{part.weight / total:.1%} {part.spec}" for part in recipe.datasets
        )
        is_trained = recipe.resume and (Path(recipe.output_dir) / "manifest.json").exists()
        trained += is_trained
        done = "trained" if is_trained else f"{recipe.max_steps} steps"
        label = f" ({settings[training.name]})" if plan.axes or plan.cells else ""
        click.echo(f"{training.name}{label}: {parts}; seed {recipe.seed}; {done}")
    click.echo(f"each benched with {plan.evaluation.n} predictions an output on {plan.evaluation.dataset}")
    rows, seeds = len(plan.table_rows()), len(plan.seeds)
    click.echo(
        f"{rows} row{'s' * (rows != 1)} with {seeds} seed{'s' * (seeds != 1)} each: {len(trainings)} to train, "
        f"{trained} of them trained"
    )

"""The command ``bench plan``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.entry import print_warnings
from harness.cli_options import FloatRange, json_option, output_option, print_result

if TYPE_CHECKING:
    from harness.recipes.recipe_runs import RecipeRuns, TrainedModel

_POINTS = FloatRange(0, 100, min_open=True)
_HOURS = FloatRange(0, 1e12)


@click.command()
@click.argument("runs", nargs=-1, metavar="RUN[@MODEL] …")
@click.option(
    "--recipe",
    "recipes",
    multiple=True,
    metavar="NAME=RUN@MODEL,...",
    help="A recipe and its training runs; repeat it. Default: by the recipes that the runs recorded.",
)
@click.option(
    "--training",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of trained adapters, for the recipes of runs that recorded none; repeatable.",
)
@click.option("--common", is_flag=True, help="If the runs declared different tasks, use the tasks that all have.")
@click.option("--metric", default="accuracy", show_default=True, help="The metric to compare in.")
@click.option("--difference", type=_POINTS, default=1.0, show_default=True, help="The difference to resolve, points.")
@click.option(
    "--train-sd", type=FloatRange(0, 100), help="Assume that training runs of a recipe vary by this many points."
)
@click.option(
    "--task-sd",
    type=FloatRange(0, 100),
    help="Assume that a recipe's effect varies by this many points over tasks.",
)
@click.option("--gpu-hours-per-training", "per_training", type=_HOURS, help="Price of one training run.")
@click.option("--gpu-hours-per-1000-predictions", "per_predictions", type=_HOURS, help="Price of 1,000 predictions.")
@click.option("--budget", type=_HOURS, help="GPU-hours to spend; without it, as much as the pilot's numbers cost.")
@click.option("--max-tasks", type=click.IntRange(10, 100_000), help="The number of tasks that exist.")
@output_option(
    type=click.Path(dir_okay=False, path_type=Path),
    old_names=(),
    help="Draw the curves into this .png or .svg file.",
)
@json_option("the plan", was_flag=False)
def plan(
    runs: tuple[str, ...],
    recipes: tuple[str, ...],
    training: tuple[Path, ...],
    common: bool,
    metric: str,
    difference: float,
    train_sd: float | None,
    task_sd: float | None,
    per_training: float | None,
    per_predictions: float | None,
    budget: float | None,
    max_tasks: int | None,
    output: Path | None,
    json_file: Path | None,
) -> None:
    """Say how many tasks, training runs and predictions resolve a difference of two recipes at 80 % power.

    The runs are a pilot: at least two training runs of a recipe, or one of each recipe with --train-sd. With both
    prices it also prints the cheapest plan, and which of the three a budget is best spent on.

    \b
    bench plan runs/a-s0 runs/a-s1 runs/b-s0 --difference 1 -o plan.png
    bench plan runs/a runs/b --train-sd 1.5 --gpu-hours-per-training 3 --gpu-hours-per-1000-predictions 0.1
    """
    import json

    from harness.core.files import write_atomically
    from harness.recipes.half_splits import MEANS
    from harness.recipes.pilot_runs import read_pilot
    from harness.recipes.recipe_plan import MOST_TASKS, make_plan
    from harness.recipes.recipe_runs import read_halves
    from harness.results.plan_text import plan_json, plan_text

    _check_options(runs, recipes, metric, per_training, per_predictions, budget, output)
    grouped = _pilot_recipes(runs, recipes, training, common, train_sd is not None)
    deviations = [None if sd is None else sd / 100 for sd in (train_sd, task_sd)]
    pilot = read_pilot(metric, grouped, read_halves(grouped) if metric in MEANS else {}, *deviations)
    result = make_plan(pilot, difference / 100, per_training, per_predictions, budget, max_tasks or MOST_TASKS)
    if output is not None:
        from reports.plots.power import plan_picture

        write_atomically(output, plan_picture(result, output.suffix[1:].lower()))
    print_result(plan_text(result), json.dumps(plan_json(result), indent=2), json_file)


def _check_options(
    runs: Sequence[str],
    recipes: Sequence[str],
    metric: str,
    per_training: float | None,
    per_predictions: float | None,
    budget: float | None,
    output: Path | None,
) -> None:
    """Refuse options that do not belong together, before anything is read."""
    from harness.voting.metrics import ENUMERATED_METRICS

    if metric not in ENUMERATED_METRICS:
        raise click.UsageError(f"there is no metric {metric!r}; choose of {', '.join(ENUMERATED_METRICS)}")
    if bool(runs) == bool(recipes):
        raise click.UsageError("name the pilot runs, or recipes with --recipe NAME=RUN@MODEL,RUN@MODEL")
    if (per_training is None) != (per_predictions is None):
        raise click.UsageError("give both --gpu-hours-per-training and --gpu-hours-per-1000-predictions, or neither")
    if budget is not None and per_training is None:
        raise click.UsageError("--budget needs --gpu-hours-per-training and --gpu-hours-per-1000-predictions")
    if output is not None and output.suffix.lower() not in (".png", ".svg"):
        raise click.UsageError(f"--out {output}: name a .png or .svg file")


def _pilot_recipes(
    runs: Sequence[str], options: Sequence[str], training: Sequence[Path], common: bool, single_runs: bool
) -> list[RecipeRuns]:
    """Return the recipes of the pilot runs.

    Args:
        single_runs: whether a model of which no recipe is known counts as a recipe with one training run.

    Raises:
        ConfigError: the recipe of a model is not known.
    """
    from harness.cli.recipe_selection import OFFER, group_by_manifest, named_recipes
    from harness.core.errors import ConfigError
    from harness.recipes.recipe_runs import RecipeRuns, trained_models
    from harness.scoring.run_selector import select_models

    named = named_recipes(options)
    names = runs or [run for listed in named.values() for run in listed]
    selected = select_models(names, common)
    print_warnings(selected.warnings)
    models = trained_models(names, selected)
    if named:
        return _named(models, {name: len(listed) for name, listed in named.items()})
    grouping = group_by_manifest(models, training, False)
    bases = [model.name for model in models if model.is_base and model.training is None]
    notes = [f"not used, as a base model is no training run: {', '.join(bases)}"] if bases else []
    print_warnings([*grouping.notes, *notes])
    if not single_runs and grouping.unknown:
        listed = ", ".join(model.name for model in grouping.unknown)
        raise ConfigError(f"the recipes of {listed} are not known; {OFFER}")
    recipes = [*grouping.recipes, *(RecipeRuns(model.name, (model,)) for model in grouping.unknown)]
    if not recipes:
        raise ConfigError(f"no model of these runs was trained by a known recipe; {OFFER}")
    return recipes


def _named(models: Sequence[TrainedModel], counts: dict[str, int]) -> list[RecipeRuns]:
    """Return the recipes of ``--recipe``: by name, how many of the models belong to it."""
    from harness.recipes.recipe_runs import RecipeRuns, refuse_same_weights

    following = iter(models)
    recipes = [RecipeRuns(name, tuple(next(following) for _ in range(count))) for name, count in counts.items()]
    for recipe in recipes:
        refuse_same_weights(recipe.models, recipe.name)
    return recipes

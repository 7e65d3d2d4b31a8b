"""The command ``bench compare``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.entry import print_warnings
from harness.cli.parameters import dataset_of_files_option
from harness.cli.recipe_selection import OFFER, Grouping, recipe_options
from harness.cli.report_to import report_comparisons, report_to_option
from harness.cli_options import FloatRange, json_option, print_result, rule_option, scorer_option

if TYPE_CHECKING:
    from harness.scoring.matched_runs import SelectedModels

SHOWN_IDS = 8
"""Ids of tasks won and of tasks lost that are listed without ``--all-ids``."""


@click.command()
@click.argument("runs", nargs=-1, metavar="RUN[@MODEL] …")
@recipe_options
@click.option("--per-adapter", is_flag=True, help="Compare the adapters as adapters, not their recipes.")
@click.option("--baseline", is_flag=True, help="Compare each model or recipe with the first only, not every pair.")
@click.option("--common", is_flag=True, help="If the runs declared different tasks, compare the tasks that all have.")
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    help="Compare this metric only; repeat it. Fewer comparisons make Holm's correction smaller.",
)
@rule_option()
@scorer_option()
@dataset_of_files_option
@click.option("--all-ids", is_flag=True, help=f"List all tasks won and lost, not the first {SHOWN_IDS}.")
@click.option(
    "--plan",
    type=FloatRange(0, 100, min_open=True),
    help="Also print how many tasks resolve a difference of this many points.",
)
@json_option("the comparisons with all ids", was_flag=False)
@report_to_option
def compare(
    runs: tuple[str, ...],
    recipes: tuple[str, ...],
    training: tuple[Path, ...],
    paired_seeds: bool,
    per_adapter: bool,
    baseline: bool,
    common: bool,
    metrics: tuple[str, ...],
    rule: str | None,
    scorer: str | None,
    dataset: str | None,
    all_ids: bool,
    plan: float | None,
    json_file: Path | None,
    report_to: tuple[str, ...],
) -> None:
    """Compare models or recipes on the same tasks: difference, interval, p value, and a verdict in words.

    Runs of at least two recipes with several training runs each are compared as recipes, over tasks and training runs;
    else models are compared in pairs, task by task. A RUN may also be a file in a format of bench score.

    \b
    bench compare runs/mine
    bench compare runs/mine@base runs/mine@adapter --metric vote_2
    bench compare runs/mine@adapter their_submission.json
    bench compare runs/a-s0 runs/a-s1 runs/b-s0 runs/b-s1
    bench compare --recipe a=runs/x@a0,runs/x@a1 --recipe b=runs/x@b0,runs/x@b1
    """
    from harness.scoring.run_selector import select_models

    _check_usage(runs, recipes, metrics, per_adapter, paired_seeds)
    named = _named_recipes(recipes)
    if twice := sorted({run for run in runs if runs.count(run) > 1}):
        raise click.UsageError(f"{', '.join(twice)}: named twice; every model is compared once")
    names = runs or tuple(run for listed in named.values() for run in listed)
    selected = select_models(names, common, rule, scorer, dataset)
    print_warnings(selected.warnings)
    grouping = None if per_adapter else _group(names, named, selected, training, paired_seeds)
    shown = None if all_ids else SHOWN_IDS
    if grouping is not None and len(grouping.repeated) > 1:
        if plan is not None:
            raise click.UsageError("--plan counts tasks for adapters; for recipes use bench plan, or --per-adapter")
        text, content = _compare_recipes(grouping, selected, baseline, metrics, shown, paired_seeds)
    elif paired_seeds:
        raise click.UsageError("--paired-seeds needs two recipes with several training runs each")
    else:
        text, content = _compare_models(selected, baseline, metrics, shown, plan)
        text = "\n\n".join([text, *_label(grouping)])
    print_result(text, content, json_file)
    report_comparisons(report_to, names, content, selected.seed)


def _check_usage(
    runs: Sequence[str], recipes: Sequence[str], metrics: Sequence[str], per_adapter: bool, paired: bool
) -> None:
    """Raise UsageError unless the options name metrics, and either runs or recipes."""
    from harness.voting.metrics import ENUMERATED_METRICS

    if unknown := [name for name in metrics if name not in ENUMERATED_METRICS]:
        raise click.UsageError(f"there is no metric {unknown[0]!r}; choose of {', '.join(ENUMERATED_METRICS)}")
    if bool(runs) == bool(recipes):
        raise click.UsageError("name the runs to compare, or recipes with --recipe NAME=RUN@MODEL,RUN@MODEL")
    if per_adapter and (recipes or paired):
        raise click.UsageError("--per-adapter compares no recipes: leave out --recipe and --paired-seeds")


def _named_recipes(options: Sequence[str]) -> dict[str, list[str]]:
    from harness.cli.recipe_selection import named_recipes

    if len(named := named_recipes(options)) == 1:
        raise click.UsageError("one recipe alone has nothing to be compared with; give --recipe twice")
    return named


def _group(
    names: Sequence[str],
    named: dict[str, list[str]],
    selected: SelectedModels,
    training: Sequence[Path],
    paired: bool,
) -> Grouping:
    from harness.cli.recipe_selection import group_as_named, group_by_manifest
    from harness.recipes.recipe_runs import trained_models
    from harness.scoring.run_selector import is_file_of_predictions, split_run_name

    if named:
        return group_as_named(trained_models(names, selected), named, training, paired)
    if file := next((name for name in names if is_file_of_predictions(split_run_name(name)[0])), None):
        if training:
            raise click.UsageError(f"--training finds the recipes of runs, and {file} is a file of predictions")
        return Grouping((), notes=(f"{file} is a file, so that runs are not grouped by recipe",) * (len(names) > 2))
    return group_by_manifest(trained_models(names, selected), training, paired)


def _compare_recipes(
    grouping: Grouping,
    selected: SelectedModels,
    with_first: bool,
    metrics: Sequence[str],
    shown: int | None,
    paired: bool,
) -> tuple[str, str]:
    """Return the comparison of recipes as text and as JSON."""
    import json

    from harness.recipes.recipe_comparison import compare_selected_recipes
    from harness.results.recipe_table import recipe_text, recipes_json, recipes_text

    recipes = grouping.repeated
    print_warnings(list(grouping.notes))
    compared = {name for recipe in recipes for name in recipe.names}
    if left_out := [scores.model for scores in selected.scored if scores.model not in compared]:
        print_warnings([f"not compared, as no training runs of their recipe are beside them: {', '.join(left_out)}"])
    rows = compare_selected_recipes(recipes, selected, with_first, metrics, paired)
    texts = "\n".join(recipe_text(row, shown) for row in rows)
    return f"{recipes_text(recipes, rows)}\n\n{texts}", json.dumps(recipes_json(rows), indent=2)


def _compare_models(
    selected: SelectedModels, with_first: bool, metrics: Sequence[str], shown: int | None, plan: float | None
) -> tuple[str, str]:
    """Return the comparison of single models as text and as JSON."""
    import json

    from harness.results.comparison_table import (
        comparison_footnote,
        comparison_table,
        comparison_text,
        comparisons_json,
        plan_table,
    )
    from harness.results.sequential_text import sequential_text
    from harness.scoring.matched_runs import compare_matched

    comparisons = compare_matched(selected, metrics, with_first)
    texts = [comparison_text(row, shown) for row in comparisons]
    parts = [*map(sequential_text, selected.sequential), comparison_table(comparisons)]
    parts += [comparison_footnote(comparisons), "\n".join(texts)]
    if plan is not None:
        parts.append(plan_table(comparisons, plan / 100))
    return "\n\n".join(parts), json.dumps(comparisons_json(comparisons), indent=2)


def _label(grouping: Grouping | None) -> list[str]:
    """Return what a comparison of single models says and does not say, and what would compare recipes."""
    from harness.results.recipe_table import ADAPTERS_ONLY

    if grouping is None:
        return [ADAPTERS_ONLY]
    parts = [ADAPTERS_ONLY, *(f"{note[0].upper()}{note[1:]}." for note in grouping.notes)]
    if len(grouping.unknown) > 1:
        names = ", ".join(model.name for model in grouping.unknown[:SHOWN_IDS])
        names += " …" if len(grouping.unknown) > SHOWN_IDS else ""
        parts.append(f"The recipes of {names} are unknown; to compare recipes, {OFFER}.")
    return ["\n".join(parts)]

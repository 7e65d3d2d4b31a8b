"""Comparisons of recipes, each with several training runs, as a data frame and as a table for notebooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from harness.core.errors import ConfigError
from harness.frames.columns import Schema, make_frame
from harness.frames.comparisons import markdown_with_warnings
from harness.recipes.recipe_comparison import ComparedRecipes, compare_selected_recipes
from harness.recipes.recipe_runs import RecipeRuns, named_recipe_runs, trained_models
from harness.results.recipe_table import recipes_text
from harness.scoring.matched_runs import check_metrics
from harness.scoring.run_selector import require_one_model, select_models

COMPARED_RECIPES: Schema = {
    "metric": "category",
    "recipe": "category",
    "baseline": "category",
    "recipe_runs": "Int32",
    "baseline_runs": "Int32",
    "difference": "Float64",
    "low": "Float64",
    "high": "Float64",
    "p": "Float64",
    "p_holm": "Float64",
    "verdict": "category",
    "tasks": "Int32",
    "won": "Int32",
    "lost": "Int32",
    "runs_needed": "Int32",
    "standard_error": "Float64",
    "share_tasks": "Float64",
    "share_training": "Float64",
    "share_training_tasks": "Float64",
    "share_sampling": "Float64",
    "won_ids": "object",
    "lost_ids": "object",
}


@dataclass(frozen=True, eq=False)
class RecipeComparisons:
    """Comparisons of recipes over tasks and training runs, corrected together."""

    recipes: list[RecipeRuns]
    rows: list[ComparedRecipes]
    warnings: list[str]
    """Differences between the runs other than their models."""

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row per metric and pair of recipes; differences are shares, not percentage points."""
        return make_frame(COMPARED_RECIPES, map(_row, self.rows))

    def __repr__(self) -> str:
        return recipes_text(self.recipes, self.rows)

    def _repr_html_(self) -> str:
        return markdown_with_warnings(repr(self), self.warnings)


def compare_recipes(
    recipes: Mapping[str, Sequence[str]],
    *,
    metrics: Sequence[str] | None = None,
    baseline: bool = False,
    common: bool = False,
    paired_seeds: bool = False,
    rule: str | None = None,
) -> RecipeComparisons:
    """Compare recipes over tasks and training runs, as ``bench compare --recipe`` does.

    Args:
        recipes: by name, the training runs as ``RUN@MODEL``, at least two of each recipe.
        metrics: None compares all.
        baseline: whether to compare each recipe with the first only, not every pair.
        common: whether to compare the tasks that all have, if the runs declared different ones.
        paired_seeds: whether the training runs of the recipes belong together in pairs, in their order.
        rule: the selection rule that gives vote_1 and vote_2; None takes each run's own.

    Raises:
        ConfigError: there is no second recipe, or a recipe has no second training run, or two with the same weights.
        RunError: there is no such run or model, or the runs' tasks differ.
    """
    if len(recipes) < 2:
        raise ConfigError("one recipe alone has nothing to be compared with; name a second one")
    check_metrics(metrics)
    names = [str(run) for runs in recipes.values() for run in runs]
    for name in names:
        require_one_model(name)
    selected = select_models(names, common, rule)
    grouped = named_recipe_runs(trained_models(names, selected), recipes, paired_seeds)
    rows = compare_selected_recipes(grouped, selected, baseline, metrics, paired_seeds)
    return RecipeComparisons(grouped, rows, selected.warnings)


def _row(row: ComparedRecipes) -> tuple[object, ...]:
    c = row.comparison
    shares: tuple[float | None, ...] = (None,) * 4
    if c.shares is not None:
        shares = (c.shares.tasks, c.shares.training, c.shares.training_tasks, c.shares.sampling)
    return (
        row.metric, row.recipe, row.baseline, *c.runs, c.delta, c.low, c.high, c.p, c.p_holm, c.verdict, c.tasks, c.won,
        c.lost, row.runs_needed, c.standard_error, *shares, row.won, row.lost,
    )  # fmt: skip

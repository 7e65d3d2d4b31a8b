"""Comparisons of recipes over tasks and training runs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from harness.core.errors import ConfigError, RunError
from harness.recipes.half_splits import HalfScores, halves_variance
from harness.recipes.recipe_runs import RecipeRuns, read_halves, require_several_tasks
from harness.scoring.comparable_metrics import comparable_values, compared_metrics
from harness.scoring.matched_runs import SelectedModels
from harness.scoring.paired_comparison import HEADLINE
from harness.stats.bootstrap import Floats
from harness.stats.crossed_variance import difference_variance
from harness.stats.planning import runs_for_plan
from harness.stats.power import components_of
from harness.stats.recipes import RecipeComparison, compare_recipes, correct_recipes
from harness.voting.metrics import LOWER_IS_BETTER, METRICS

Pair = tuple[RecipeRuns, RecipeRuns]
"""A recipe, and the one that it is compared with."""


@dataclass(frozen=True, slots=True)
class ComparedRecipes:
    """One metric of ``recipe`` compared with ``baseline``."""

    metric: str
    recipe: str
    baseline: str
    recipe_runs: tuple[str, ...]
    """Names of the training runs of the recipe."""
    baseline_runs: tuple[str, ...]
    comparison: RecipeComparison
    won: tuple[str, ...]
    """Ids of the tasks on which the mean over the recipe's training runs is better."""
    lost: tuple[str, ...]
    """Ids of the tasks on which it is worse."""
    runs_needed: int | None
    """Training runs of each recipe that resolve the observed difference on these tasks at 80 % power; None if 64 do
    not, or nothing differs."""


@dataclass(frozen=True)
class RecipeScores:
    """Scores of the training runs of two recipes in one metric, each of shape (runs, tasks)."""

    metric: str
    pair: Pair
    values: Floats = field(repr=False)
    baseline: Floats = field(repr=False)

    @property
    def ids(self) -> tuple[str, ...]:
        """Return the ids of the tasks."""
        return self.pair[0].models[0].scores.tasks.ids


def recipe_pairs(recipes: Sequence[RecipeRuns], with_first: bool = False) -> list[Pair]:
    """Return every pair of recipes, or each with the first only; the baseline is the earlier one."""
    pairs = [(recipe, baseline) for baseline, recipe in itertools.combinations(recipes, 2)]
    return [pair for pair in pairs if pair[1] is recipes[0]] if with_first else pairs


def compare_selected_recipes(
    recipes: Sequence[RecipeRuns],
    selected: SelectedModels,
    with_first: bool = False,
    metrics: Sequence[str] | None = None,
    paired: bool = False,
) -> list[ComparedRecipes]:
    """Compare recipes of selected models in pairs, with the share of sampling; see ``compare_recipe_pairs``.

    Args:
        with_first: whether to compare each recipe with the first only.
        metrics: None takes those that two models of their kinds have; one that is named twice counts once.

    Raises:
        ConfigError: no metric is measured for all training runs alike.
    """
    chosen = list(dict.fromkeys(metrics or compared_metrics(selected.scored, METRICS)))
    pairs = recipe_pairs(recipes, with_first)
    rows = compare_recipe_pairs(pairs, selected.seed, chosen, paired, read_halves(recipes))
    if not rows:
        raise ConfigError(f"{', '.join(chosen)}: not measured for all training runs alike")
    return rows


def compare_recipe_pairs(
    pairs: Sequence[Pair],
    seed: int,
    metrics: Sequence[str] | None = None,
    paired: bool = False,
    halves: Mapping[tuple[Path, str], HalfScores] | None = None,
) -> list[ComparedRecipes]:
    """Compare pairs of recipes in each metric over tasks and training runs.

    A metric in which two recipes are not comparable is skipped. Holm's correction is over everything that is returned.

    Args:
        metrics: None takes HEADLINE, with ``greedy`` if some views were enumerated.
        seed: of sign flips.
        paired: whether training run s of each recipe belongs with training run s of every other.
        halves: as ``read_halves`` returns them, for the share of sampling; None leaves it unknown.

    Raises:
        RunError: the training runs were scored on different tasks.
        ValueError: a recipe has fewer than two training runs, or paired ones differ in number.
    """
    if metrics is None:
        models = [model.scores for pair in pairs for recipe in pair for model in recipe.models]
        metrics = compared_metrics(models, HEADLINE)
    cells = [scores for metric in metrics for pair in pairs if (scores := recipe_scores(metric, pair)) is not None]
    return correct_recipe_pairs([[_compare(cell, seed, paired, halves or {}) for cell in cells]])[0]


def correct_recipe_pairs(groups: Sequence[Sequence[ComparedRecipes]]) -> list[list[ComparedRecipes]]:
    """Return the same groups with Holm's correction over all of them, for groups that are read together."""
    rows = [row for group in groups for row in group]
    lower = [row.metric in LOWER_IS_BETTER for row in rows]
    corrected = iter(correct_recipes([row.comparison for row in rows], lower))
    return [[replace(row, comparison=next(corrected)) for row in group] for group in groups]


def recipe_scores(metric: str, pair: Pair) -> RecipeScores | None:
    """Return the scores of two recipes in one metric; None if some of their training runs are not comparable in it.

    Raises:
        RunError: the training runs were scored on different tasks, or on one.
    """
    for recipe in pair:
        require_several_tasks(recipe)
    ours, theirs = ([model.scores for model in recipe.models] for recipe in pair)
    for scores in (*ours, *theirs):
        if scores.tasks.ids != ours[0].tasks.ids:
            raise RunError(f"{ours[0].model} and {scores.model} were scored on different tasks, so that no task pairs")
    values: list[list[Floats]] = [[], []]
    for side, models, others in ((0, ours, theirs), (1, theirs, ours)):
        for scores in models:
            each = [comparable_values(metric, scores, other) for other in (*models, *others)]
            if any(values_of_both is None for values_of_both in each):
                return None
            values[side].append(each[-1][0])  # type: ignore[index]
    return RecipeScores(metric, pair, np.stack(values[0]), np.stack(values[1]))


def sampling_of(scores: RecipeScores, halves: Mapping[tuple[Path, str], HalfScores]) -> float | None:
    """Return the variance of a score that sampling explains, for ``compare_recipes``; None if it is not known."""
    models = [model for recipe in scores.pair for model in recipe.models]
    return halves_variance(scores.metric, [halves.get((model.run, model.config.name)) for model in models], scores.ids)


def _compare(
    scores: RecipeScores, seed: int, paired: bool, halves: Mapping[tuple[Path, str], HalfScores]
) -> ComparedRecipes:
    """Return the comparison of one metric, without Holm's correction."""
    lower, sampling = scores.metric in LOWER_IS_BETTER, sampling_of(scores, halves)
    comparison = compare_recipes(
        scores.values, scores.baseline, paired=paired, lower_is_better=lower, sampling=sampling, seed=seed
    )
    # Rounded as in compare_recipes: sums in another order differ in the last bits, which is no difference.
    gains = np.round(scores.values.mean(axis=0) - scores.baseline.mean(axis=0), 12) * (-1 if lower else 1)
    recipe, baseline = scores.pair
    return ComparedRecipes(
        metric=scores.metric,
        recipe=recipe.name,
        baseline=baseline.name,
        recipe_runs=recipe.names,
        baseline_runs=baseline.names,
        comparison=comparison,
        won=tuple(task for task, gain in zip(scores.ids, gains, strict=True) if gain > 0),
        lost=tuple(task for task, gain in zip(scores.ids, gains, strict=True) if gain < 0),
        runs_needed=_runs_needed(scores, paired, comparison.delta),
    )


def _runs_needed(scores: RecipeScores, paired: bool, delta: float) -> int | None:
    """Return how many training runs of each recipe resolve a difference on as many tasks.

    For pairs of runs the number is that of unpaired ones, which is rather too many than too few.
    """
    variance = difference_variance(scores.values, scores.baseline, paired)
    if not variance.total > 0:
        return None
    return runs_for_plan(components_of(variance), variance.tasks, 1, delta)

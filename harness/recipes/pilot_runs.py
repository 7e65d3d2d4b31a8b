"""Variances of scores from pilot runs, from which a comparison of recipes is planned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import numpy as np

from harness.core.errors import ConfigError
from harness.recipes.half_splits import HalfScores, halves_variance
from harness.recipes.recipe_comparison import Pair, RecipeScores, recipe_scores, sampling_of
from harness.recipes.recipe_runs import RecipeRuns
from harness.stats.crossed_variance import FEWEST_RUNS, difference_variance
from harness.stats.planning import FEWEST_TASKS
from harness.stats.power import (
    Components,
    Plan,
    components_of,
    components_of_adapters,
    components_of_few_runs,
    mean_components,
)
from harness.voting.metrics import VOTE_METRICS

Halves = Mapping[tuple[Path, str], HalfScores]


@dataclass(frozen=True)
class Pilot:
    """What pilot runs say about the variances of one metric."""

    metric: str
    recipes: tuple[RecipeRuns, ...]
    components: Components
    plan: Plan
    """The pilot's own numbers; training runs are those of the recipe with the fewest, at least two."""
    outputs_per_task: float
    """Mean number of test outputs of a task."""
    assumptions: tuple[str, ...]
    """What the variances rest on beside the pilot runs, in words."""


def read_pilot(
    metric: str,
    recipes: Sequence[RecipeRuns],
    halves: Halves,
    train_sd: float | None = None,
    task_sd: float | None = None,
) -> Pilot:
    """Return what the pilot runs of recipes say about the variances of a metric.

    With more than two recipes, the variances are means over the comparisons of each with the first.

    Args:
        halves: as ``read_halves`` returns them.
        train_sd: assumed standard deviation of the means of training runs, in place of the pilot's.
        task_sd: assumed standard deviation over tasks of the difference of two recipes, in place of the pilot's.

    Raises:
        ConfigError: the runs do not show a variance, and none is assumed; they have too few tasks or different numbers
            of predictions; or the metric is not measured in all of them.
    """
    models = [model for recipe in recipes for model in recipe.models]
    if (tasks := len(models[0].scores.outputs)) < FEWEST_TASKS:
        raise ConfigError(f"the pilot has {tasks} tasks; variances over tasks need at least {FEWEST_TASKS}")
    _check_runs(recipes, train_sd, task_sd)
    predictions = _predictions(metric, recipes)
    pairs = [(recipe, recipes[0]) for recipe in recipes[1:]] or [(recipes[0], recipes[0])]
    repeated = [recipe for recipe in recipes if len(recipe.models) >= FEWEST_RUNS]
    components = mean_components([_components(metric, pair, repeated, predictions, halves, train_sd) for pair in pairs])
    if train_sd is not None:
        components = replace(components, training=train_sd**2)
    if task_sd is not None:
        components = replace(components, recipe_task=task_sd**2)
    if not (components.recipe_task or components.training or components.residual(predictions)):
        raise ConfigError(f"{metric}: nothing varies between the pilot runs, so that nothing can be planned from them")
    outputs = sum(map(len, models[0].scores.outputs.values()))
    runs = max(FEWEST_RUNS, min(len(recipe.models) for recipe in recipes))
    assumptions = tuple(_assumptions(recipes, train_sd, task_sd))
    return Pilot(metric, tuple(recipes), components, Plan(tasks, runs, predictions), outputs / tasks, assumptions)


def _check_runs(recipes: Sequence[RecipeRuns], train_sd: float | None, task_sd: float | None) -> None:
    """Raise ConfigError unless every variance is shown by the runs or assumed."""
    names = ", ".join(f"{recipe.name} ({', '.join(recipe.names)})" for recipe in recipes)
    repeated = any(len(recipe.models) >= FEWEST_RUNS for recipe in recipes)
    if len(recipes) == 1 and not repeated:
        raise ConfigError(
            f"one training run of one recipe, {names}, shows no variance: name further training runs, with other seeds "
            "or of another recipe"
        )
    if not repeated and train_sd is None:
        raise ConfigError(
            f"each recipe has one training run, {names}: nothing is known about how training runs differ. Name "
            "another training run of one of them, or assume with --train-sd how many points they vary"
        )
    if len(recipes) == 1 and task_sd is None:
        raise ConfigError(
            f"all runs are of one recipe, {names}: how differently tasks respond to another recipe is not known. Name "
            "a run of another recipe, or assume with --task-sd by how many points its effect varies over tasks"
        )


def _predictions(metric: str, recipes: Sequence[RecipeRuns]) -> int:
    """Return the number of predictions per test output, which must be the same in all runs.

    Of a run with early stopping it is that of the first round, of which means over predictions are.

    Raises:
        ConfigError: it is not; or the metric is a vote, which is of all rounds, after early stopping.
    """
    for model in (model for recipe in recipes for model in recipe.models if metric in VOTE_METRICS):
        stopping = model.scores.stopping
        if stopping is not None and stopping.not_drawn:
            raise ConfigError(
                f"{model.name} stopped early, so that nothing shows how its {metric} varies with the number of "
                "predictions; plan with --metric accuracy, or from pilot runs without --stop"
            )
    numbers = {
        model.name: round(fmean(score.n for outputs in model.scores.outputs.values() for score in outputs))
        for recipe in recipes
        for model in recipe.models
    }
    if len(set(numbers.values())) > 1:
        texts = ", ".join(f"{name} {number}" for name, number in numbers.items())
        raise ConfigError(f"the pilot runs have different numbers of predictions per test output: {texts}")
    return max(1, next(iter(numbers.values())))


def _components(
    metric: str,
    pair: Pair,
    repeated: Sequence[RecipeRuns],
    predictions: int,
    halves: Halves,
    train_sd: float | None,
) -> Components:
    """Return the components of one pair of recipes; a recipe paired with itself stands alone.

    Args:
        repeated: all recipes with several training runs, which show how those of two recipes with one each vary.
    """
    scores = _scores(metric, pair)
    sampling = _sampling(scores, halves)
    runs = [len(scores.values), len(scores.baseline)]
    if min(runs) >= FEWEST_RUNS and pair[0] is not pair[1]:
        return components_of(difference_variance(scores.values, scores.baseline), predictions, sampling)
    if max(runs) >= FEWEST_RUNS:
        return components_of_few_runs(scores.values, scores.baseline, predictions, sampling)
    if repeated:
        others = [_scores(metric, (recipe, recipe)).values for recipe in repeated]
        return components_of_few_runs(scores.values, scores.baseline, predictions, sampling, others)
    sd = float(np.std(scores.values[0] - scores.baseline[0], ddof=1))
    return components_of_adapters(sd, train_sd or 0.0, predictions, sampling or 0.0)


def _scores(metric: str, pair: Pair) -> RecipeScores:
    """Return the scores of two recipes; raise ConfigError if they are not comparable in the metric."""
    if (scores := recipe_scores(metric, pair)) is None:
        raise ConfigError(f"{metric} is not measured alike in {pair[0].name} and {pair[1].name}; choose another metric")
    return scores


def _sampling(scores: RecipeScores, halves: Halves) -> float | None:
    """Return the variance of a score that sampling explains; None if it is not known."""
    recipe, baseline = scores.pair
    if recipe is not baseline:
        return sampling_of(scores, halves)
    return halves_variance(scores.metric, [halves.get((m.run, m.config.name)) for m in recipe.models], scores.ids)


def _assumptions(recipes: Sequence[RecipeRuns], train_sd: float | None, task_sd: float | None) -> list[str]:
    """Return what the variances rest on beside the runs, as sentences."""
    single = [recipe.name for recipe in recipes if len(recipe.models) < FEWEST_RUNS]
    texts = []
    if train_sd is not None:
        texts.append(f"Training runs of a recipe are assumed to vary by {100 * train_sd:g} points (--train-sd).")
    elif single:
        texts.append(f"Training runs of {', '.join(single)} are assumed to vary like those of the other recipes.")
    if task_sd is not None:
        texts.append(f"The effect of a recipe is assumed to vary by {100 * task_sd:g} points over tasks (--task-sd).")
    if len(recipes) > 2:
        texts.append(f"The variances are means over {len(recipes) - 1} comparisons with {recipes[0].name}.")
    largest = max(len(recipe.models) for recipe in recipes)
    if train_sd is None and largest < 5:
        texts.append(
            f"At most {largest} training runs of a recipe show how training varies: the estimate is rough, and so is "
            "the plan."
        )
    return texts

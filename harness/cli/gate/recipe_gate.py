"""``bench gate`` of recipes: whether the interval over tasks and training runs reaches what is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli.entry import print_warnings
from harness.cli.gate.gate_requirement import Requirement
from harness.cli.gate.model_gate import ScoringChoices
from harness.cli.recipe_selection import OFFER, Grouping, group_as_named, group_by_manifest, named_recipes
from harness.core.errors import ConfigError

if TYPE_CHECKING:
    from harness.recipes.recipe_runs import RecipeRuns, TrainedModel
    from harness.stats.gate import Gate


def gate_recipes(
    runs: Sequence[str],
    baselines: Sequence[str],
    recipes: Sequence[str],
    requirement: Requirement,
    choices: ScoringChoices,
    training: Sequence[Path],
    paired: bool,
) -> tuple[Gate, str]:
    """Test a recipe against a minimum, or against another recipe; return the verdict and its reason.

    Args:
        runs: the training runs of the tested recipe, and ``baselines`` those of the other one; or else
        recipes: the values of ``--recipe``, the tested one first.

    Raises:
        ConfigError: the runs are not several training runs of one recipe each, or the metric does not apply.
        RunError, DataError: a run is missing or broken.
    """
    from harness.recipes.recipe_runs import trained_models
    from harness.scoring.run_selector import require_measured

    if paired and requirement.minimum is not None:
        raise ConfigError("--paired-seeds needs two recipes, with --margin or --min-gain")
    named = named_recipes(recipes)
    names = [run for listed in named.values() for run in listed] if named else [*runs, *baselines]
    selected = choices.select(names)
    models = trained_models(names, selected)
    if named:
        grouping = group_as_named(models, named, training, paired)
    else:
        sides = {"the tested runs": models[: len(runs)], "the baseline": models[len(runs) :]}
        grouping = _one_recipe_each({name: side for name, side in sides.items() if side}, training, paired)
    print_warnings(list(grouping.notes))
    require_measured(selected, requirement.metric)
    if requirement.minimum is not None:
        return _test_minimum(grouping.recipes[0], requirement, selected.seed)
    return _test_difference(grouping.recipes[0], grouping.recipes[1], requirement, selected.seed, paired)


def _one_recipe_each(sides: dict[str, list[TrainedModel]], training: Sequence[Path], paired: bool) -> Grouping:
    """Return the recipe of each side.

    Raises:
        ConfigError: the recipe of a run is not known, a side has several recipes, or one training run only.
    """
    from harness.recipes.recipe_runs import require_several_runs

    every = [model for side in sides.values() for model in side]
    grouping = group_by_manifest(every, training, paired)
    if grouping.unknown:
        raise ConfigError(f"the recipe of {', '.join(m.name for m in grouping.unknown)} is unknown: {OFFER}")
    recipes = []
    for name, side in sides.items():
        names = {model.name for model in side}
        matching = [recipe for recipe in grouping.recipes if names & set(recipe.names)]
        if len(matching) != 1 or names != set(matching[0].names):
            why = "; ".join([*grouping.notes, *(f"{r.name}: {', '.join(r.names)}" for r in matching)])
            raise ConfigError(f"{name} ({', '.join(sorted(names))}) are not training runs of one recipe ({why})")
        require_several_runs(matching[0])
        recipes.append(matching[0])
    return Grouping(tuple(recipes), notes=grouping.notes)


def _test_minimum(recipe: RecipeRuns, requirement: Requirement, seed: int) -> tuple[Gate, str]:
    """Test whether the mean of a recipe reaches a minimum."""
    import numpy as np

    from harness.recipes.recipe_runs import require_several_tasks
    from harness.results.recipe_table import training_runs
    from harness.results.table_format import with_interval
    from harness.stats.gate import gate_verdict
    from harness.stats.recipe_interval import recipe_interval

    metric, minimum = requirement.metric, requirement.minimum or 0.0
    if requirement.lower_is_better:
        raise ConfigError(f"less of {metric} is better, so that --min does not apply; use a baseline and --margin")
    require_several_tasks(recipe)
    values = np.stack([model.scores.tasks.values_of(metric) for model in recipe.models])
    interval = recipe_interval(values, seed=seed)
    about = f"over {interval.tasks} tasks and {training_runs(len(recipe.models))}"
    text = f"{metric} of recipe {recipe.name} is {with_interval(interval)} {about}"
    verdict = gate_verdict(interval.low, interval.high, minimum)
    return verdict, f"{text}, asked for is at least {100 * minimum:g} %"


def _test_difference(
    recipe: RecipeRuns, baseline: RecipeRuns, requirement: Requirement, seed: int, paired: bool
) -> tuple[Gate, str]:
    """Test the difference of the mean of a recipe from the baseline's."""
    from harness.recipes.recipe_comparison import compare_recipe_pairs, recipe_scores

    metric = requirement.metric
    rows = compare_recipe_pairs([(recipe, baseline)], seed, (metric,), paired)
    scores = recipe_scores(metric, (recipe, baseline))
    if not rows or scores is None:
        raise ConfigError(f"{metric} is not measured alike for all training runs of {recipe.name} and {baseline.name}")
    comparison = rows[0].comparison
    verdict, gain = requirement.verdict_on_difference(comparison)
    differences = scores.values.mean(axis=0) - scores.baseline.mean(axis=0)
    print_warnings(requirement.notes_beside(verdict, comparison, differences))
    about = f"over {comparison.tasks} tasks and {comparison.runs[0]} and {comparison.runs[1]} training runs"
    text = f"{metric} of recipe {recipe.name} {gain} on recipe {baseline.name}, {about}"
    return verdict, f"{text}, {requirement.asked_for}"

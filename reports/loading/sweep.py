"""Load the record of a sweep and compute its table: one row per mixture, averaged over training seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from harness.core.errors import RunError
from harness.recipes.half_splits import half_scores
from harness.recipes.recipe_comparison import (
    ComparedRecipes,
    compare_recipe_pairs,
    correct_recipe_pairs,
    recipe_pairs,
)
from harness.recipes.recipe_runs import RecipeRuns, TrainedModel, require_several_tasks
from harness.results.comparison_table import comparisons_json
from harness.results.recipe_table import recipes_json
from harness.runs.schemas.sweep_record import SweepRecord
from harness.scoring.model_scores import ModelScores, score_intervals
from harness.scoring.paired_comparison import PairedComparison, compare_pairs, correct_together, pairs_with_first
from harness.stats.intervals import Interval
from harness.stats.recipe_interval import recipe_intervals
from harness.voting.metrics import TaskScores
from reports.loading.runs import Section


@dataclass(frozen=True, eq=False)
class SweepTable:
    """The mixtures of a sweep on one dataset."""

    record: SweepRecord
    section: Section
    mixtures: tuple[ModelScores, ...]
    """One per row of the record, named by its label. The values of a task are means over the training seeds."""
    intervals: tuple[dict[str, Interval], ...]
    """For each mixture, the interval of every metric: over tasks and training runs, or over tasks if a mixture has one
    training run."""
    pairs: tuple[PairedComparison, ...] = ()
    """Each mixture compared with the first as single adapters, if a mixture has one training run. Holm's correction
    is over all tables of the sweep."""
    recipes: tuple[ComparedRecipes, ...] = ()
    """Each mixture compared with the first as recipes, if all have several training runs; corrected likewise."""
    family_size: int = 0
    """Number of comparisons corrected together."""

    @property
    def recipes_known(self) -> bool:
        """Return whether every mixture has several training runs."""
        return all(len(row.models) > 1 for row in self.record.rows)


def read_sweep(path: Path) -> SweepRecord:
    """Read the record that ``bench sweep`` wrote.

    Raises:
        RunError: the file is missing or broken.
    """
    try:
        return SweepRecord.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise RunError(f"{path}: not the record of a sweep: {' '.join(str(error).split())[:300]}") from None


def sweep_tables(sections: Sequence[Section], record: SweepRecord) -> list[SweepTable]:
    """Return one table for each section on which all adapters of the sweep were benched.

    Raises:
        RunError: there is no such section.
    """
    trained = {model for row in record.rows for model in row.models}
    complete = [section for section in sections if trained <= {scores.model for scores in section.scored}]
    tables = [_sweep_table(section, record) for section in complete or sections[:1]]
    pairs = correct_together([table.pairs for table in tables])
    recipes = correct_recipe_pairs([table.recipes for table in tables])
    family_size = sum(map(len, pairs)) + sum(map(len, recipes))
    return [
        replace(table, pairs=tuple(singles), recipes=tuple(rows), family_size=family_size)
        for table, singles, rows in zip(tables, pairs, recipes, strict=True)
    ]


def tables_json(tables: Sequence[SweepTable]) -> list[dict[str, object]]:
    """Return the tables for another program: every row with its intervals, and all comparisons with the first row.

    ``recipes`` are comparisons over tasks and training runs; ``adapters`` are over tasks, where a row has one training
    run.
    """
    return [
        {
            "dataset": table.section.dataset,
            "n": table.section.n,
            "tasks": len(table.section.tasks),
            "rows": [
                {
                    "label": row.label,
                    "models": row.models,
                    "metrics": {name: asdict(interval) for name, interval in intervals.items()},
                }
                for row, intervals in zip(table.record.rows, table.intervals, strict=True)
            ],
            "recipes": recipes_json(table.recipes),
            "adapters": comparisons_json(table.pairs),
        }
        for table in tables
    ]


def _sweep_table(section: Section, record: SweepRecord) -> SweepTable:
    """Return the table of one section, Holm-corrected over this section alone."""
    known = {scores.model: scores for scores in section.scored}
    mixtures = []
    for row in record.rows:
        if missing := [name for name in row.models if name not in known]:
            raise RunError(f"the sweep's {', '.join(missing)} is in none of the runs; they have: {', '.join(known)}")
        mean = mean_over_seeds([known[name].tasks for name in row.models])
        mixtures.append(replace(known[row.models[0]], model=row.label, tasks=mean))
    table = SweepTable(record, section, tuple(mixtures), ())
    if table.recipes_known:
        recipes = _recipes(section, record)
        return replace(
            table,
            intervals=tuple(_recipe_intervals(recipe, section.seed) for recipe in recipes),
            recipes=_compare_with_first(recipes, table),
        )
    pairs = compare_pairs(pairs_with_first(mixtures), section.seed) if len(mixtures) > 1 else []
    return replace(table, intervals=tuple(score_intervals(mixtures, section.seed)), pairs=tuple(pairs))


def _recipes(section: Section, record: SweepRecord) -> list[RecipeRuns]:
    """Return the mixtures as recipes with their training runs."""
    models = {
        scores.model: TrainedModel(scores, run.path, run.config(name))
        for scores, (_, run, name) in zip(section.scored, section.models_with_runs(), strict=True)
    }
    return [RecipeRuns(row.label, tuple(models[name] for name in row.models)) for row in record.rows]


def _recipe_intervals(recipe: RecipeRuns, seed: int) -> dict[str, Interval]:
    """Return the interval over tasks and training runs of every metric that all training runs measure."""
    require_several_tasks(recipe)
    first, *others = [model.scores for model in recipe.models]
    measured = [name for name in first.measured if all(name in other.measured for other in others)]
    values = [[model.scores.tasks.values_of(name) for model in recipe.models] for name in measured]
    return dict(zip(measured, recipe_intervals(values, seed=seed), strict=True))


def _compare_with_first(recipes: Sequence[RecipeRuns], table: SweepTable) -> tuple[ComparedRecipes, ...]:
    """Compare each recipe with the first."""
    if len(recipes) < 2:
        return ()
    paths = {model.run for recipe in recipes for model in recipe.models}
    halves = {
        (run.path, name): half
        for run in table.section.runs
        if run.path in paths
        for name, half in half_scores(run.reopen()).items()
    }
    pairs, paired = recipe_pairs(recipes, with_first=True), table.record.paired_seeds
    return tuple(compare_recipe_pairs(pairs, table.section.seed, paired=bool(paired), halves=halves))


def mean_over_seeds(tasks: Sequence[TaskScores]) -> TaskScores:
    """Return the mean of several models' scores, task by task.

    Raises:
        RunError: the models were scored on different tasks.
    """
    if len(tasks) == 1:
        return tasks[0]
    if any(other.ids != tasks[0].ids for other in tasks):
        raise RunError("the seeds of a mixture were benched on different tasks")
    if any(other.metrics != tasks[0].metrics for other in tasks):
        raise RunError("the seeds of a mixture were benched with and without --search dfs")
    return TaskScores(
        ids=tasks[0].ids,
        values=np.mean([t.values for t in tasks], axis=0),
        per_output={name: float(np.mean([t.per_output[name] for t in tasks])) for name in tasks[0].per_output},
        strict={name: float(np.mean([t.strict[name] for t in tasks])) for name in tasks[0].strict},
        # A mean of k values that are multiples of 1 / d is a multiple of 1 / (d k).
        denominator=math.lcm(*(t.denominator for t in tasks)) * len(tasks),
        metrics=tasks[0].metrics,
    )

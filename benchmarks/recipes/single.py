"""Coverage and width of the interval of one recipe's mean over tasks and training runs, at the published level."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.optimize import brentq

from benchmarks.common.population import SEED
from benchmarks.common.store import Store
from benchmarks.recipes.population import Recipes, expected_score, mean_over, smooth
from harness.results.table_format import markdown_table
from harness.stats.intervals import intervals
from harness.stats.recipe_interval import recipe_intervals

METRICS = ("accuracy", "vote_2")
TRAINING = (0.0, 0.01, 0.03)
"""Standard deviations of training runs on the mean over tasks."""
RUNS = (2, 3, 5, 10)
TASKS = (30, 100, 400)
LOWEST = 93.0
"""Accepted coverage (%): at least, as for one model, where training contributes no more than the tasks do."""
_BLOCK = 200


def measure(store: Store, replicates: int) -> tuple[str, list[str]]:
    """Return the table, and in words which cells are out of bounds; simulate what is missing.

    A cell has the coverage of the interval over tasks and training runs, that of the interval over tasks only, and the
    mean width of the first.
    """
    rows: list[list[str]] = []
    missed: list[str] = []
    for metric, sd in itertools.product(METRICS, TRAINING):
        key = f"recipes: single, {metric}, sd {sd}, {replicates}"
        part = store.get(key, lambda m=metric, s=sd: _simulate(m, s, replicates))
        rows += part["rows"]
        missed += part["missed"]
    header = ["metric", "sd of training runs, points", "runs", *(f"{tasks} tasks" for tasks in TASKS)]
    return f"{_HEAD}\n\n{markdown_table(header, rows)}\n", missed


def _simulate(metric: str, sd: float, replicates: int) -> dict[str, Any]:
    """Return the rows of one metric and standard deviation of training runs, and which cells are out of bounds."""
    recipes = _with_training(metric, sd)
    truth = mean_over(expected_score(metric), math.sqrt(1 + recipes.training**2))
    rows, missed = [], []
    for runs in RUNS:
        row = [metric, f"{100 * sd:g}", str(runs)]
        for tasks in TASKS:
            covered, width, control = _cell(recipes, truth, runs, tasks, replicates)
            contributes_more = sd**2 / runs > _variance_over_tasks(recipes) / tasks
            row.append(f"{covered:.1f} ({control:.1f}); {width:.1f}{'*' if contributes_more else ''}")
            if covered < LOWEST and not contributes_more:
                missed.append(f"one recipe, {metric}, {runs} runs, {tasks} tasks: coverage {covered:.1f} %")
        rows.append(row)
    return {"rows": rows, "missed": missed}


def _with_training(metric: str, sd: float) -> Recipes:
    """Return recipes whose training runs differ by a standard deviation on the mean over tasks."""
    recipes = Recipes(metric, 0.1, 0.05)
    if not sd:
        return recipes

    def excess(training: float) -> float:
        return replace(recipes, training=training).training_variance() - sd**2

    return replace(recipes, training=float(brentq(excess, 1e-3, 3.0, xtol=1e-4)))


def _variance_over_tasks(recipes: Recipes) -> float:
    """Return the variance over tasks of the expected score of a recipe."""
    table = smooth(expected_score(recipes.metric), math.sqrt(recipes.training_task + recipes.training**2))
    sd = math.sqrt(recipes.tasks + recipes.recipe_task)
    return mean_over(table**2, sd) - mean_over(table, sd) ** 2


def _cell(recipes: Recipes, truth: float, runs: int, tasks: int, replicates: int) -> tuple[float, float, float]:
    """Return coverage (%), mean width (points), and the coverage of the interval over tasks only."""
    rng = np.random.default_rng([SEED, 31, runs, tasks, round(1000 * recipes.training), *recipes.metric.encode()])
    covered, widths, control = [], [], []
    for start in range(0, replicates, _BLOCK):
        scores, _ = recipes.draw((runs, 2), tasks, min(_BLOCK, replicates - start), rng)
        ours = recipe_intervals(scores, resamples=999)
        covered += [interval.low <= truth <= interval.high for interval in ours]
        widths += [interval.high - interval.low for interval in ours]
        over_tasks = intervals(scores.mean(axis=1), 32 * runs, resamples=999)
        control += [interval.low <= truth <= interval.high for interval in over_tasks]
    return 100 * float(np.mean(covered)), 100 * float(np.mean(widths)), 100 * float(np.mean(control))


_HEAD = f"""\
## The mean of one recipe

Coverage (%) of the nominal 95 % interval of one recipe's mean over tasks and training runs, in brackets that of the
interval over tasks only (of the means over the same runs), then the mean width of the first in points. Scores are drawn
at the published level at N = 32; training runs differ on the mean over tasks by the standard deviation in the second
column. Wanted: at least {LOWEST:g}, but in cells with a star. There training contributes more to the variance than the
tasks do, and at this level its effects are skewed, which a few training runs do not show."""

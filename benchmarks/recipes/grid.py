"""The acceptance grid of intervals of a difference of recipes.

A cell is a number of training runs and tasks, a metric or normal scores, and training's contribution to the variance
of the difference as a multiple of that of recipe × task.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np

from benchmarks.common.population import SEED, Floats
from benchmarks.common.store import Store
from benchmarks.recipes.methods import half_widths
from benchmarks.recipes.population import Recipes
from harness.stats.crossed_variance import DifferenceVariance, RunVariance, difference_variance

RATIOS = (0.0, 0.05, 0.1, 0.25, 0.5, 1.0)
METRICS = ("accuracy", "vote_2")
RATIOS_OF_DRAWN = {100: RATIOS, 400: (0.0, 0.25, 1.0)}
"""By number of tasks, for scores at the published level."""
DESIGNS = ((2, 2), (3, 3), (5, 5), (10, 10), (3, 10))
INTERACTIONS = (0.1, 1.0, 5.0)
"""Of normal scores: contribution of training × task as a multiple of that of recipe × task."""
LEVELS = {"": (0.1, 0.05), ", recipes alike": (0.02, 0.02)}
"""Of scores at the published level: variances of recipe × task and training × task in units of the normal number."""
_CELLS_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class Cell:
    """Coverage and relative width of the methods in one cell."""

    scores: str
    runs: tuple[int, int]
    paired: bool
    tasks: int
    ratio: float
    share: float
    """True share of training in the variance of the difference."""
    covered: dict[str, float]
    """By method, in per cent."""
    width: dict[str, float]
    """By method, the mean width as a multiple of that of a normal interval with the true variance."""

    @property
    def design(self) -> str:
        """Return the numbers of training runs in words."""
        if self.runs[0] != self.runs[1]:
            return f"{self.runs[0]} and {self.runs[1]}"
        return f"{self.runs[0]} pairs" if self.paired else str(self.runs[0])


def normal_variance(
    runs: tuple[int, ...], tasks: int, ratio: float, interaction: float, replicates: int, rng: np.random.Generator
) -> DifferenceVariance:
    """Draw the mean squares of normal scores: independent multiples of χ² for any numbers of runs.

    Args:
        runs: of the two recipes; one number if the runs are paired.
    """

    def mean_square(expected: float, freedom: int) -> Floats:
        return expected * rng.chisquare(freedom, replicates) / freedom

    total = sum(1 / r for r in runs)
    sets = []
    for r in runs:
        training, residual = ratio / r / total, interaction / r / total
        between = mean_square(training + residual, r - 1)
        sets.append(RunVariance(r, between, mean_square(residual, (r - 1) * (tasks - 1))))
    return DifferenceVariance(
        runs=(runs[0], runs[-1]),
        tasks=tasks,
        delta=rng.standard_normal(replicates) * np.sqrt(1 + ratio + interaction),
        over_tasks=mean_square(1 + interaction, tasks - 1),
        run_sets=tuple(sets),
    )


def drawn_variance(
    recipes: Recipes, runs: tuple[int, int], paired: bool, tasks: int, replicates: int, rng: np.random.Generator
) -> DifferenceVariance:
    """Draw scores at the published level and return their mean squares, of all replicates."""
    block = max(1, _CELLS_AT_ONCE // (sum(runs) * tasks))
    parts = [
        difference_variance(*recipes.draw(runs, tasks, min(block, replicates - start), rng), paired=paired)
        for start in range(0, replicates, block)
    ]
    return DifferenceVariance(
        runs,
        tasks,
        np.concatenate([part.delta for part in parts]),
        np.concatenate([part.over_tasks for part in parts]),
        tuple(
            RunVariance(
                sets[0].runs,
                np.concatenate([runs.between for runs in sets]),
                np.concatenate([runs.interaction for runs in sets]),
            )
            for sets in zip(*(part.run_sets for part in parts), strict=True)
        ),
    )


def summary(
    scores: str, v: DifferenceVariance, ratio: float, interaction: float, tasks_part: float, true: float
) -> Cell:
    """Return the cell of simulated mean squares.

    Args:
        interaction: true contribution of training × task as a multiple of that of recipe × task.
        tasks_part: true contribution of recipe × task.
        true: true difference.
    """
    whole = 1 + ratio + interaction
    halves, best = half_widths(v), 1.96 * np.sqrt(tasks_part * whole)
    distance = np.abs(v.delta - true)
    return Cell(
        scores=scores,
        runs=v.runs,
        paired=v.paired,
        tasks=v.tasks,
        ratio=ratio,
        share=ratio / whole,
        covered={name: 100 * float(np.mean(distance <= half)) for name, half in halves.items()},
        width={name: float(np.mean(half)) / best for name, half in halves.items()},
    )


def normal_cells(runs: tuple[int, int], paired: bool, tasks: int, replicates: int) -> list[Cell]:
    """Simulate the cells with normal scores."""
    rng = np.random.default_rng([SEED, *runs, paired, tasks])
    sets = runs[:1] if paired else runs
    return [
        summary("normal", normal_variance(sets, tasks, ratio, part, replicates, rng), ratio, part, 1.0, 0.0)
        for part in INTERACTIONS
        for ratio in RATIOS
    ]


def drawn_cells(
    metric: str, level: str, runs: tuple[int, int], paired: bool, tasks: int, replicates: int, difference: float = 0.0
) -> list[Cell]:
    """Simulate the cells with scores at the published level; paired runs share half of the training variance."""
    rng = np.random.default_rng([SEED, *runs, paired, tasks, *level.encode(), *metric.encode()])
    base = Recipes(metric, *LEVELS[level], pairing=0.5 if paired else 0.0)
    cells = []
    for ratio in RATIOS_OF_DRAWN[tasks]:
        recipes = base.with_training(ratio, runs, tasks)
        recipes = recipes.with_difference(difference) if difference else recipes
        v = drawn_variance(recipes, runs, paired, tasks, replicates, rng)
        part = base.recipe_task_variance() / tasks
        interaction = float(v.interaction.mean()) / part
        name = f"{metric}{level}" + (f", {100 * difference:.0f} points apart" if difference else "")
        cells.append(summary(name, v, ratio, interaction, part, recipes.true_difference()))
    return cells


def measure(store: Store, replicates: int, quick: bool) -> list[Cell]:
    """Return all cells, running what is missing; published levels of pairs are simulated with 100 tasks only.

    Args:
        quick: 3 and 10 runs on 100 tasks only.
    """
    designs = [(runs, False) for runs in (((3, 3), (10, 10)) if quick else DESIGNS)]
    designs += [] if quick else [((n, n), True) for n in (3, 5, 10)]
    cells: list[Cell] = []
    for (runs, paired), tasks in itertools.product(designs, (100,) if quick else (100, 400)):
        design = (runs, paired, tasks, replicates)
        key = f"{runs[0]} and {runs[1]} runs{' in pairs' if paired else ''}, {tasks} tasks, {replicates}"
        cells += _stored(store, f"normal, {key}", partial(normal_cells, *design))
        for metric in METRICS if tasks == 100 or not paired else ():
            cells += _stored(store, f"{metric}, {key}", partial(drawn_cells, metric, "", *design))
            if runs == (3, 3) and tasks == 100 and not (paired or quick):
                alike = partial(drawn_cells, metric, ", recipes alike", *design)
                apart = partial(drawn_cells, metric, "", *design, difference=0.1)
                cells += _stored(store, f"{metric}, recipes alike, {key}", alike)
                cells += _stored(store, f"{metric}, 10 points apart, {key}", apart)
    return cells


def _stored(store: Store, key: str, simulate: Callable[[], list[Cell]]) -> list[Cell]:
    """Return the cells that are stored under a key, simulating them if there are none."""
    line = store.get(f"recipes: {key}", lambda: {"cells": [asdict(cell) for cell in simulate()]})
    return [Cell(**{**cell, "runs": tuple(cell["runs"])}) for cell in line["cells"]]

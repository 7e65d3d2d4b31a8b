"""Simulated scores of training runs of two recipes at the published level (accuracy 13 %, vote_2 25 % at N = 32).

A task's probability of the exact grid is a function of a standard normal number, to which the task, recipe × task,
training × task and the training run add up. So every effect can be made as large as wanted while the level stays, and
all true values are one-dimensional integrals.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.optimize import brentq
from scipy.special import betaincinv, ndtr

from benchmarks.common.population import SEED, Floats, Population, score_outputs
from harness.voting.metrics import METRICS

PREDICTIONS = 32
_STEP = 1 / 256
_REACH = 9.0
_GRID = np.arange(-_REACH, _REACH + _STEP / 2, _STEP)


@cache
def expected_score(metric: str) -> Floats:
    """Return the expected score at each point of the grid of normal numbers."""
    population = Population()
    above = np.clip((ndtr(_GRID) - population.never) / (1 - population.never), 0, 1 - 1e-12)
    chance: Floats = np.where(above > 0, betaincinv(*population.solved, above), 0.0)
    if metric == "accuracy":
        return chance
    knots = np.r_[0.0, np.geomspace(1e-3, 0.5, 60), np.linspace(0.52, 1, 25)]
    rng = np.random.default_rng([SEED, 21])
    scores = [score_outputs(population, np.full(8_000, p), PREDICTIONS, rng)[METRICS.index(metric)] for p in knots]
    result: Floats = np.interp(chance, knots, np.mean(scores, axis=1))
    return result


def at(table: Floats, z: NDArray[np.floating]) -> Floats:
    """Return the values of a table over the grid at normal numbers."""
    index = ((np.clip(z, -_REACH, _REACH) + _REACH) * (1 / _STEP) + 0.5).astype(np.int32)
    values: Floats = table[index]
    return values


def smooth(table: Floats, sd: float) -> Floats:
    """Return the expectation of a table when a normal number with this standard deviation is added."""
    result: Floats = gaussian_filter1d(table, sd / _STEP, mode="nearest", truncate=6.0)
    return result


def mean_over(table: Floats, sd: float) -> float:
    """Return the mean of a table over normal numbers with this standard deviation."""
    density = np.exp(-0.5 * (_GRID / sd) ** 2)
    return float((table * density).sum() / density.sum())


@dataclass(frozen=True)
class Recipes:
    """Two recipes whose training runs are scored in one metric; variances in units of the normal number."""

    metric: str
    recipe_task: float
    """Variance of recipe × task."""
    training_task: float
    """Variance of training × task."""
    training: float = 0.0
    """Standard deviation of the training runs."""
    shift: float = 0.0
    """What the first recipe adds on every task."""
    pairing: float = 0.0
    """Share of the training runs' variance that paired runs have in common."""

    @property
    def tasks(self) -> float:
        """Variance of the tasks."""
        return 1 - self.recipe_task - self.training_task

    def true_difference(self) -> float:
        """Return the difference of the two recipes' means over all tasks and training runs."""
        table, sd = expected_score(self.metric), math.sqrt(1 + self.training**2)
        return mean_over(np.interp(_GRID + self.shift, _GRID, table), sd) - mean_over(table, sd)

    def recipe_task_variance(self) -> float:
        """Return the variance over tasks of the expected difference of two recipes without shift."""
        by_recipe = smooth(expected_score(self.metric), math.sqrt(self.training_task + self.training**2))
        by_task = smooth(by_recipe, math.sqrt(self.recipe_task))
        whole = mean_over(by_recipe**2, math.sqrt(self.tasks + self.recipe_task))
        return 2 * (whole - mean_over(by_task**2, math.sqrt(self.tasks)))

    def training_variance(self) -> float:
        """Return the variance of a training run's mean over all tasks, without what paired runs have in common."""
        table = smooth(expected_score(self.metric), 1.0)
        if not self.training:
            return 0.0
        common = smooth(table, self.training * math.sqrt(1 - self.pairing))
        shared = mean_over(common**2, max(self.training * math.sqrt(self.pairing), 1e-3))
        return mean_over(table**2, self.training) - shared

    def with_training(self, ratio: float, runs: tuple[int, int], tasks: int) -> Recipes:
        """Return the recipes with training's contribution to the variance as a multiple of that of recipe × task."""
        if not ratio:
            return replace(self, training=0.0)

        def excess(sd: float) -> float:
            trained = replace(self, training=sd)
            contribution = trained.training_variance() * sum(1 / r for r in runs)
            return contribution - ratio * trained.recipe_task_variance() / tasks

        return replace(self, training=float(brentq(excess, 1e-3, 3.0, xtol=1e-4)))

    def with_difference(self, difference: float) -> Recipes:
        """Return the recipes with a shift that makes the first better by ``difference``."""
        shift = brentq(lambda s: replace(self, shift=s).true_difference() - difference, -3.0, 3.0, xtol=1e-7)
        return replace(self, shift=float(shift))

    def draw(
        self, runs: tuple[int, int], tasks: int, replicates: int, rng: np.random.Generator
    ) -> tuple[Floats, Floats]:
        """Draw the scores of both recipes' training runs, each of shape (replicates, runs, tasks)."""

        def normal(sd: float, *shape: int) -> NDArray[np.float32]:
            return rng.standard_normal((replicates, *shape), dtype=np.float32) * np.float32(sd)

        task = normal(math.sqrt(self.tasks), 1, tasks)
        common = normal(self.training * math.sqrt(self.pairing), max(runs), 1)
        scores = []
        for number, shift in zip(runs, (self.shift, 0.0), strict=True):
            z = normal(math.sqrt(self.training_task), number, tasks)
            z += task + normal(math.sqrt(self.recipe_task), 1, tasks) + np.float32(shift)
            z += common[:, :number] + normal(self.training * math.sqrt(1 - self.pairing), number, 1)
            expected = at(expected_score(self.metric), z)
            if self.metric == "accuracy":
                scores.append(rng.binomial(PREDICTIONS, expected) / PREDICTIONS)
            else:
                scores.append((rng.random(z.shape, dtype=np.float32) < expected).astype(np.float64))
        return scores[0], scores[1]

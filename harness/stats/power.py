"""Planning of a comparison of recipes: what numbers of tasks, training runs and predictions resolve."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from harness.stats.bootstrap import Floats
from harness.stats.crossed_variance import FEWEST_RUNS, DifferenceVariance, RunVariance
from harness.stats.paired_test import SIGNIFICANCE

POWER = 0.8
_RUN_NODES, _TASK_NODES = 24, 5
"""Numbers of quantiles of a mean square of runs and of tasks."""


@dataclass(frozen=True, slots=True)
class Components:
    """Variances of scores in one metric, from which the variance of a difference of recipes follows."""

    recipe_task: float
    """Variance over tasks of the difference of two recipes, over all their training runs."""
    training: float
    """Variance of a training run's mean over all tasks of this kind."""
    training_task: float
    """Variance of a training run's score on a task beyond that; with sampling, if ``sampling`` is None."""
    sampling: float | None = None
    """Variance of a score on a task from sampling ``predictions``; None if unknown, or if the metric is no mean over
    predictions: then predictions do not count in a plan."""
    predictions: int = 1
    """Number of predictions per test output to which ``sampling`` applies."""

    def residual(self, predictions: int) -> float:
        """Return the variance of a training run's score on a task with so many predictions, without ``training``."""
        sampled = 0.0 if self.sampling is None else self.sampling * self.predictions / predictions
        return self.training_task + sampled


@dataclass(frozen=True)
class Plan:
    """Numbers of tasks, of training runs of each recipe, and of predictions per test output."""

    tasks: int
    runs: int
    predictions: int

    def __post_init__(self) -> None:
        if self.tasks < 2 or self.runs < FEWEST_RUNS or self.predictions < 1:
            raise ValueError(
                f"a plan needs at least 2 tasks, {FEWEST_RUNS} training runs of each recipe and 1 prediction, "
                f"not {self.tasks}, {self.runs} and {self.predictions}"
            )


def components_of(variance: DifferenceVariance, predictions: int = 1, sampling: float | None = None) -> Components:
    """Return the components that pilot runs of two recipes show; a negative estimate counts as 0.

    Args:
        variance: of one difference, from ``difference_variance``.
        predictions: number of predictions per test output of the pilot runs.
        sampling: as ``recipes.sampling_variance`` returns it, if the metric is a mean over predictions.
    """
    per_run = sum(1 / runs for runs in variance.runs)
    residual = float(variance.interaction) * variance.tasks / per_run
    sampled = None if sampling is None else min(sampling, residual)
    return Components(
        recipe_task=max(float(variance.over_tasks - variance.interaction), 0.0) * variance.tasks,
        training=float(variance.training) / per_run,
        training_task=residual - (sampled or 0.0),
        sampling=sampled,
        predictions=predictions,
    )


def components_of_adapters(sd: float, training_sd: float, predictions: int = 1, sampling: float = 0.0) -> Components:
    """Return components from one adapter of each recipe and an assumed standard deviation of training runs.

    Training × task cannot be told from recipe × task and counts as that, so that the plan asks for too many tasks
    rather than for too few.

    Args:
        sd: standard deviation of the tasks' differences between the two adapters.
        training_sd: assumed standard deviation of the means of training runs of one recipe.
        predictions: number of predictions per test output of the two adapters.
        sampling: as for ``components_of``; 0 if it is not known.

    Raises:
        ValueError: an argument is negative.
    """
    if min(sd, training_sd, sampling) < 0:
        raise ValueError("a standard deviation or variance cannot be negative")
    sampled = min(sampling, sd * sd / 2)
    return Components(sd * sd - 2 * sampled, training_sd**2, 0.0, sampled or None, predictions)


def components_of_few_runs(
    values: ArrayLike,
    baseline: ArrayLike,
    predictions: int = 1,
    sampling: float | None = None,
    others: Sequence[ArrayLike] = (),
) -> Components:
    """Return the components that pilot runs show if one of two recipes, or each, has a single training run.

    The training runs of all recipes are assumed to vary alike, so that those of the other recipes show how. Equal
    numbers of runs give what ``components_of`` gives where no estimate is negative.

    Args:
        values: scores of one recipe, shape (runs, tasks).
        baseline: scores of the other recipe on the same tasks.
        predictions: number of predictions per test output of the pilot runs.
        sampling: as for ``components_of``.
        others: scores of further recipes on the same tasks, each of shape (runs, tasks); only how their training runs
            vary is used.

    Raises:
        ValueError: no recipe has several training runs.
    """
    recipes = [np.asarray(scores, np.float64) for scores in (values, baseline)]
    further = [np.asarray(scores, np.float64) for scores in others]
    repeated = [scores for scores in (*recipes, *further) if len(scores) >= FEWEST_RUNS]
    freedom, tasks = sum(len(scores) - 1 for scores in repeated), recipes[0].shape[1]
    if not freedom:
        raise ValueError("one training run of each recipe says nothing about how training runs differ")
    between = sum((len(scores) - 1) * scores.mean(axis=1).var(ddof=1) for scores in repeated) / freedom
    effects = [s - s.mean(axis=1, keepdims=True) - s.mean(axis=0) + s.mean() for s in repeated]
    residual = float(sum((effect**2).sum() for effect in effects)) / (freedom * (tasks - 1))
    over_tasks = float((recipes[0].mean(axis=0) - recipes[1].mean(axis=0)).var(ddof=1))
    sampled = None if sampling is None else min(sampling, residual)
    return Components(
        recipe_task=max(over_tasks - residual * sum(1 / len(scores) for scores in recipes), 0.0),
        training=max(float(between) - residual / tasks, 0.0),
        training_task=residual - (sampled or 0.0),
        sampling=sampled,
        predictions=predictions,
    )


def mean_components(components: Sequence[Components]) -> Components:
    """Return the mean of the components of several pairs of recipes; the numbers of predictions must be equal."""
    known = [c.sampling for c in components if c.sampling is not None]
    return Components(
        recipe_task=float(np.mean([c.recipe_task for c in components])),
        training=float(np.mean([c.training for c in components])),
        training_task=float(np.mean([c.training_task for c in components])),
        sampling=float(np.mean(known)) if len(known) == len(components) else None,
        predictions=components[0].predictions,
    )


def standard_error(components: Components, plan: Plan) -> float:
    """Return the true standard error of the difference of two recipes under a plan."""
    per_run = components.training + components.residual(plan.predictions) / plan.tasks
    return math.sqrt(components.recipe_task / plan.tasks + 2 * per_run / plan.runs)


def power(components: Components, plan: Plan, difference: float) -> float:
    """Return the probability that ``compare_recipes`` finds p < 0.05 if the true difference is ``difference``.

    For normal scores the difference is independent of the mean squares, which are multiples of χ². The probability is
    averaged over quantiles of the mean squares of tasks and of both recipes' runs.
    """
    error = standard_error(components, plan)
    return float(_rejected(_half_widths(components, plan), error, abs(difference))) if error else float(difference != 0)


def resolvable_by_plan(components: Components, plan: Plan, wanted: float = POWER) -> float:
    """Return the smallest difference that a plan resolves with the wanted power; 0 if nothing varies.

    With few training runs more tasks can resolve slightly less: where training is a larger share of the variance, the
    test has fewer degrees of freedom.
    """
    from scipy.optimize import brentq

    error = standard_error(components, plan)
    if not error:
        return 0.0
    halves = _half_widths(components, plan)
    # The largest half width and 10 standard errors are found by every test.
    highest = float(halves.max()) + 10 * error
    return float(brentq(lambda difference: _rejected(halves, error, difference) - wanted, 0.0, highest, xtol=1e-7))


def _half_widths(components: Components, plan: Plan) -> Floats:
    """Return half widths of the 95 % interval at equally likely combinations of the mean squares."""
    from scipy.special import stdtrit

    residual = components.residual(plan.predictions) / (plan.runs * plan.tasks)
    between = (components.training / plan.runs + residual) * _mean_square_quantiles(plan.runs - 1, _RUN_NODES)
    over_tasks = (components.recipe_task / plan.tasks + 2 * residual) * _mean_square_quantiles(
        plan.tasks - 1, _TASK_NODES
    )
    tasks, first, second = (axis.ravel() for axis in np.meshgrid(over_tasks, between, between, indexing="ij"))
    kept = first <= second  # the two recipes are alike, so that half of the combinations say it all
    weights = np.where(first < second, 2, 1)[kept]
    interaction = np.full(int(kept.sum()), residual)
    variance = DifferenceVariance(
        runs=(plan.runs, plan.runs),
        tasks=plan.tasks,
        delta=np.zeros(len(interaction)),
        over_tasks=tasks[kept],
        run_sets=tuple(RunVariance(plan.runs, square[kept], interaction) for square in (first, second)),
    )
    halves = stdtrit(variance.degrees_of_freedom, 1 - SIGNIFICANCE / 2) * np.sqrt(variance.total)
    return np.repeat(halves, weights)


def _mean_square_quantiles(freedom: int, nodes: int) -> Floats:
    """Return equally likely quantiles of a mean square with expectation 1, scaled to a mean of 1."""
    from scipy.special import gammaincinv

    values = np.asarray(gammaincinv(freedom / 2, (np.arange(nodes) + 0.5) / nodes), np.float64)
    return values / float(values.mean())


def _rejected(halves: Floats, error: float, difference: float) -> float:
    """Return the probability that a normal difference with this standard error lies outside ± a half width."""
    from scipy.special import ndtr

    return float(np.mean(ndtr((difference - halves) / error) + ndtr((-difference - halves) / error)))

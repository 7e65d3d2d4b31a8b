"""Candidates for the interval of a difference of recipes, as half widths from the mean squares of simulated scores."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from scipy.special import stdtrit

from harness.stats.bootstrap import Floats
from harness.stats.crossed_variance import DifferenceVariance, RunVariance, satterthwaite, sum_of

LEVEL = 0.975


@cache
def _quantiles() -> tuple[Floats, Floats]:
    """Return degrees of freedom and their quantiles of Student's t."""
    freedom = np.concatenate((np.arange(1, 40, 0.02), np.geomspace(40, 1e9, 4_000)))
    return freedom, stdtrit(freedom, LEVEL)


def t_half_width(variance: Floats, freedom: Floats | float) -> Floats:
    """Return the half width of Student's t intervals (quantiles interpolated to 1e-4)."""
    half: Floats = np.interp(freedom, *_quantiles()) * np.sqrt(variance)
    return half


def chosen(v: DifferenceVariance) -> Floats:
    """Return the half width that harness.stats.recipes prints."""
    return t_half_width(v.total, v.degrees_of_freedom)


def tasks_only(v: DifferenceVariance) -> Floats:
    """Return the half width over tasks alone, the control: Student's t of the tasks' differences."""
    return t_half_width(v.over_tasks, v.tasks - 1.0)


def unsubtracted(v: DifferenceVariance) -> Floats:
    """Add the variances over tasks and over runs, with Satterthwaite's degrees of freedom.

    Training × task is counted twice.
    """
    parts = [v.over_tasks, *(runs.between for runs in v.run_sets)]
    return t_half_width(sum_of(parts), satterthwaite(parts, [v.tasks - 1, *(runs.runs - 1 for runs in v.run_sets)]))


def subtracted(v: DifferenceVariance) -> Floats:
    """Subtract training × task once, at least ``over_tasks`` in sum; Satterthwaite over all the mean squares.

    Satterthwaite (1946), with a negative term as in Gaylor and Hopper (1969, Technometrics 11:691).
    """
    parts, freedom = [v.over_tasks], [v.tasks - 1]
    for runs in v.run_sets:
        parts += [runs.between, -runs.interaction]
        freedom += [runs.runs - 1, (runs.runs - 1) * (v.tasks - 1)]
    total = np.maximum(sum_of(parts), v.over_tasks)
    squares = sum_of([part**2 / f for part, f in zip(parts, freedom, strict=True)])
    return t_half_width(total, total**2 / squares)


def readers_and_cases(v: DifferenceVariance) -> Floats:
    """Treat runs as readers and tasks as cases of a radiological study (Obuchowski and Rockette 1995).

    Degrees of freedom of Hillis (2007, Statistics in Medicine 26:596), readers nested within tests (Hillis 2014, ibid.
    33:330): the task part is at least 0 and counts as known.
    """
    total = sum_of([runs.between for runs in v.run_sets]) + np.maximum(v.over_tasks - v.interaction, 0)
    squares = sum_of([runs.between**2 / (runs.runs - 1) for runs in v.run_sets])
    return t_half_width(total, total**2 / np.maximum(squares, 1e-300))


def _all_runs(v: DifferenceVariance) -> int:
    """Return the number of runs, or of pairs of runs."""
    return sum(runs.runs for runs in v.run_sets)


def pigeonhole_variance(v: DifferenceVariance) -> Floats:
    """Return the variance of Owen's pigeonhole bootstrap (2007, Annals of Applied Statistics 1:386) in closed form.

    Tasks and, independently, runs within recipes are drawn with replacement. With infinitely many resamples the
    variance is that of tasks × (T − 1)/T + runs × (S − 1)/S + interaction × (S − 1)(T − 1)/(S T).
    """
    shrunk = (v.tasks - 1) / v.tasks

    def of_runs(runs: RunVariance) -> Floats:
        return (runs.between + shrunk * runs.interaction) * (runs.runs - 1) / runs.runs

    return v.over_tasks * shrunk + sum_of([of_runs(runs) for runs in v.run_sets])


def pigeonhole(v: DifferenceVariance) -> Floats:
    """Use the pigeonhole bootstrap's standard error with Student's t, degrees of freedom of the runs.

    Hesterberg (2015) corrects a bootstrap of few values in this way; the smallest factor decides.
    """
    return t_half_width(pigeonhole_variance(v), float(_all_runs(v) - len(v.run_sets)))


def two_way_cluster_variance(v: DifferenceVariance) -> Floats:
    """Return the two-way clustered variance (Cameron, Gelbach and Miller 2011, JBES 29:238) with task effects.

    Variance by task + by run − by their intersection, the first two × G/(G − 1). The regression of scores on recipe has
    an effect for every task; without them the intersection would contain the variance of the tasks themselves. In pairs
    it is the regression of the differences on a constant.
    """
    shrunk = (v.tasks - 1) / v.tasks
    first, second = v.runs
    # The squared residuals of the intersection contain recipe × task with these weights.
    weight = 1 / first if v.paired else (first**3 + second**3) / (first * second * (first + second) ** 2)
    clusters = _all_runs(v)
    total = v.over_tasks - v.over_tasks * shrunk * weight
    for runs in v.run_sets:
        kept = (runs.runs - 1) / runs.runs
        by_run = runs.between * kept
        total = total + by_run * clusters / (clusters - 1) - by_run / v.tasks - runs.interaction * kept * shrunk
    return total


def two_way_clusters(v: DifferenceVariance) -> Floats:
    """Use the two-way clustered variance with Student's t, degrees of freedom the fewest clusters − 1."""
    variance = two_way_cluster_variance(v)
    return t_half_width(np.where(variance > 0, variance, v.over_tasks), min(_all_runs(v), v.tasks) - 1.0)


METHODS: dict[str, Callable[[DifferenceVariance], Floats]] = {
    "harness": chosen,
    "sum": unsubtracted,
    "sum, less once": subtracted,
    "readers and cases": readers_and_cases,
    "pigeonhole, t": pigeonhole,
    "two-way clusters": two_way_clusters,
    "tasks only": tasks_only,
}


def half_widths(v: DifferenceVariance) -> dict[str, Floats]:
    """Return the half widths of nominal 95 % intervals by every method."""
    return {name: method(v) for name, method in METHODS.items()}

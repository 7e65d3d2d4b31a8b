"""Variance of a difference of two means, each over training runs and tasks (two-way analysis of variance).

The score of training run s of a recipe on task t is modelled as

    score = recipe + task + recipe × task + training run + training run × task,

where every run is scored on the same tasks. The task's effect cancels in the difference of two recipes; the other
effects are random with any variances. Training runs belong to one recipe, or, if ``paired``, run s of one recipe
belongs with run s of the other, and their difference takes the place of a run's score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from harness.stats.bootstrap import Floats

FEWEST_RUNS = 2
"""Number of training runs of each recipe from which on the variance of training can be estimated."""


@dataclass(frozen=True, slots=True)
class RunVariance:
    """Contribution of one set of training runs to the variance of the difference; arrays of any one shape."""

    runs: int
    between: Floats
    """Variance of the runs' means / runs: training, and training × task on these tasks."""
    interaction: Floats
    """The part of ``between`` that training × task (with sampling) explains: residual mean square / (runs × tasks)."""

    @property
    def training(self) -> Floats:
        """Contribution of training alone, at least 0."""
        return np.maximum(self.between - self.interaction, 0.0)


@dataclass(frozen=True, slots=True)
class DifferenceVariance:
    """The difference of two recipes' means, and what contributes to its variance; arrays of any one shape."""

    runs: tuple[int, int]
    """Number of training runs of the two recipes."""
    tasks: int
    delta: Floats
    over_tasks: Floats
    """Variance of the tasks' differences / tasks: recipe × task, and training × task of these runs."""
    run_sets: tuple[RunVariance, ...]
    """Of the two recipes' runs; if they are paired, one set: of the pairs."""

    @property
    def paired(self) -> bool:
        """Whether the training runs are compared in pairs."""
        return len(self.run_sets) == 1

    @property
    def training(self) -> Floats:
        """Contribution of training."""
        return sum_of([runs.training for runs in self.run_sets])

    @property
    def interaction(self) -> Floats:
        """Contribution of training × task, with sampling; it is a part of ``over_tasks``."""
        return sum_of([runs.interaction for runs in self.run_sets])

    @property
    def total(self) -> Floats:
        """Estimated variance of the difference: ``over_tasks`` + ``training``."""
        return self.over_tasks + self.training

    @property
    def degrees_of_freedom(self) -> Floats:
        """Degrees of freedom of ``total``; NaN where it is 0.

        They are Satterthwaite's. With pairs of runs these are too many where training matters, as one estimate with
        few degrees of freedom is all there is of training; then the lower bound is used. With two runs in a set the
        training variance often seems to be 0; then the lower bound is used with ``between`` in place of ``training``.
        The choice is by simulation (benchmarks/coverage.md).
        """
        freedom = [self.tasks - 1, *(runs.runs - 1 for runs in self.run_sets)]
        if any(runs.runs == FEWEST_RUNS for runs in self.run_sets):
            return least_degrees_of_freedom([self.over_tasks, *(runs.between for runs in self.run_sets)], freedom)
        parts = [self.over_tasks, *(runs.training for runs in self.run_sets)]
        return least_degrees_of_freedom(parts, freedom) if self.paired else satterthwaite(parts, freedom)


def difference_variance(values: ArrayLike, baseline: ArrayLike, paired: bool = False) -> DifferenceVariance:
    """Return the difference of two recipes' means and what contributes to its variance.

    Args:
        values: scores of one recipe, shape (…, runs, tasks).
        baseline: scores of the other, shape (…, runs, tasks) with the same tasks in the same order.
        paired: whether run s of ``values`` belongs with run s of ``baseline``.

    Raises:
        ValueError: a recipe has fewer than two runs, there are fewer than two tasks, the tasks differ in number, paired
            runs differ in number, or a score is not finite.
    """
    ours, theirs = np.asarray(values, np.float64), np.asarray(baseline, np.float64)
    _check_shapes(ours, theirs, paired)
    by_task = ours.mean(axis=-2) - theirs.mean(axis=-2)
    tasks = by_task.shape[-1]
    sets = [ours - theirs] if paired else [ours, theirs]
    return DifferenceVariance(
        runs=(ours.shape[-2], theirs.shape[-2]),
        tasks=tasks,
        delta=by_task.mean(axis=-1),
        over_tasks=by_task.var(axis=-1, ddof=1) / tasks,
        run_sets=tuple(map(_run_variance, sets)),
    )


def satterthwaite(parts: Sequence[Floats], freedom: Sequence[int]) -> Floats:
    """Return the degrees of freedom of a sum of independent variance estimates (Satterthwaite 1946, Biometrics 2:110).

    (Σ v)² / Σ (v² / f). NaN where the sum is 0.

    Args:
        parts: variance estimates v, arrays of one shape.
        freedom: degrees of freedom f of each.
    """
    total = sum_of(parts)
    with np.errstate(invalid="ignore", divide="ignore"):
        result: Floats = 1 / sum_of([(part / total) ** 2 / f for part, f in zip(parts, freedom, strict=True)])
    return result


def least_degrees_of_freedom(parts: Sequence[Floats], freedom: Sequence[int]) -> Floats:
    """Return a lower bound of Satterthwaite's degrees of freedom: the harmonic mean of f, weighted by v.

    Σ v / Σ (v / f): each part counts with its share of the sum, not with the square of its share. NaN where the sum
    is 0. Arguments as for ``satterthwaite``.
    """
    with np.errstate(invalid="ignore"):
        result: Floats = sum_of(parts) / sum_of([part / f for part, f in zip(parts, freedom, strict=True)])
    return result


def sum_of(parts: Sequence[Floats]) -> Floats:
    """Return the sum of arrays of one shape."""
    total: Floats = np.sum(np.stack(parts), axis=0)
    return total


def _run_variance(scores: Floats) -> RunVariance:
    """Return the mean squares of a table of runs × tasks, shape (…, runs, tasks), as contributions."""
    runs, tasks = scores.shape[-2:]
    by_run = scores.mean(axis=-1)
    centred = scores - by_run[..., None]
    centred -= centred.mean(axis=-2, keepdims=True)
    residual = np.einsum("...st,...st->...", centred, centred) / ((runs - 1) * (tasks - 1))
    return RunVariance(runs, by_run.var(axis=-1, ddof=1) / runs, residual / (runs * tasks))


def _check_shapes(ours: Floats, theirs: Floats, paired: bool) -> None:
    """Raise ValueError if the variance cannot be estimated from scores of these shapes."""
    for name, scores in (("values", ours), ("baseline", theirs)):
        if scores.ndim < 2:
            raise ValueError(f"{name} must have the shape (runs, tasks), not {scores.shape}")
        if scores.shape[-2] < FEWEST_RUNS:
            raise ValueError(
                f"{name} has {scores.shape[-2]} training run(s): nothing is known about how training runs of this "
                f"recipe differ. Train it with at least {FEWEST_RUNS} seeds, or compare the adapters as adapters"
            )
        if scores.shape[-1] < 2:
            raise ValueError(f"{name} has {scores.shape[-1]} task(s); at least 2 are needed")
        if not np.isfinite(scores).all():
            raise ValueError(f"{name} has a score that is not finite")
    if ours.shape[-1] != theirs.shape[-1]:
        raise ValueError(f"{ours.shape[-1]} tasks cannot be paired with {theirs.shape[-1]}")
    if paired and ours.shape[-2] != theirs.shape[-2]:
        raise ValueError(f"{ours.shape[-2]} training runs cannot be paired with {theirs.shape[-2]}")

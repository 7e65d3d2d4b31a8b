"""The interval of one recipe's mean over tasks and training runs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student

from harness.stats.intervals import intervals, wilson
from harness.stats.planning import runs_for_plan
from harness.stats.power import Components, Plan, power
from harness.stats.recipe_interval import recipe_interval
from tests.stats.test_recipes import scores


def test_it_is_the_two_way_variance_of_one_table() -> None:
    values = scores(1, 4, 50, 0.4, 0.05)
    runs, tasks = values.shape
    by_run, by_task = values.mean(axis=1), values.mean(axis=0)
    residual = values - by_run[:, None] - by_task[None, :] + values.mean()
    interaction = (residual**2).sum() / ((runs - 1) * (tasks - 1)) / (runs * tasks)
    over_tasks, training = by_task.var(ddof=1) / tasks, max(by_run.var(ddof=1) / runs - interaction, 0)
    total = over_tasks + training
    freedom = total**2 / (over_tasks**2 / (tasks - 1) + training**2 / (runs - 1))
    low, high = student.interval(0.95, freedom, loc=values.mean(), scale=math.sqrt(total))
    result = recipe_interval(values)
    over_tasks = intervals(by_task)[0]
    assert result.value == pytest.approx(values.mean())
    assert result.low == pytest.approx(min(low, over_tasks.low))
    assert result.high == pytest.approx(max(high, over_tasks.high))
    assert result.tasks == 50
    assert result.method == ("t" if low <= over_tasks.low and over_tasks.high <= high else "t and bca")


def test_skewed_scores_of_few_tasks_reach_as_far_up_as_the_bootstrap() -> None:
    values = np.zeros((3, 30))
    values[:, :6] = [[0.1, 0.1, 0.2, 0.3, 0.9, 1.0]]
    values[0, 3] = 0.2
    result, over_tasks = recipe_interval(values), intervals(values.mean(axis=0))[0]
    assert (result.method, result.high) == ("t and bca", over_tasks.high)
    assert result.low < over_tasks.low


def test_training_that_differs_widens_beyond_the_tasks() -> None:
    values = np.repeat([[0.2], [0.5], [0.8]], 100, axis=1) + np.linspace(-0.1, 0.1, 100)
    result, over_tasks = recipe_interval(values), intervals(values.mean(axis=0))[0]
    assert result.method == "t"
    assert result.high - result.low > 10 * (over_tasks.high - over_tasks.low)


def test_sparse_scores_get_at_least_wilsons_interval() -> None:
    values = np.zeros((3, 100))
    result = recipe_interval(values)
    assert (result.low, result.high) == wilson(0.0, 100)
    assert result.method == "t and wilson"
    values[:, :2] = 1
    values[0, 2] = 1
    sparse, (low, high) = recipe_interval(values), wilson(float(values.mean()), 100)
    assert sparse.low <= low + 1e-9
    assert sparse.high >= high - 1e-9


@given(st.integers(0, 2**32), st.integers(2, 6), st.floats(0, 0.2))
@settings(deadline=None, max_examples=40)
def test_it_contains_the_mean_and_widens_with_training(seed: int, runs: int, training: float) -> None:
    values = scores(seed, runs, 40, 0.5, training)
    result = recipe_interval(values)
    assert 0 <= result.low <= result.value <= result.high <= 1
    over_tasks = student.ppf(0.975, 39) * values.mean(axis=0).std(ddof=1) / math.sqrt(40)
    assert result.high - result.low >= 2 * over_tasks * (1 - 1e-9)


@pytest.mark.parametrize(
    ("values", "message"),
    [(np.zeros((1, 9)), "1 training run"), (np.full((2, 9), 1.5), "within"), (np.zeros((2, 1)), "1 task")],
)
def test_wrong_scores_are_refused(values: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe_interval(values)


def test_runs_for_a_plan_are_the_fewest() -> None:
    components = Components(recipe_task=0.04, training=0.0004, training_task=0.02)
    runs = runs_for_plan(components, 400, 8, 0.05)
    assert runs is not None
    assert power(components, Plan(400, runs, 8), 0.05) >= 0.8
    assert runs == 2 or power(components, Plan(400, runs - 1, 8), 0.05) < 0.8
    assert runs_for_plan(components, 400, 8, 0.001) is None
    assert runs_for_plan(components, 400, 8, 0.0) is None

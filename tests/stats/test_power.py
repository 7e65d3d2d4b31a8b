"""Power of comparisons of recipes against simulation, and plans against brute force."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.recipes.grid import normal_variance
from benchmarks.recipes.methods import chosen
from harness.stats.crossed_variance import difference_variance
from harness.stats.paired_test import resolvable_difference
from harness.stats.planning import PREDICTIONS, Prices, cheapest_plan, purchases, tasks_for_plan
from harness.stats.power import (
    POWER,
    Components,
    Plan,
    components_of,
    components_of_adapters,
    power,
    resolvable_by_plan,
    standard_error,
)
from harness.stats.recipes import compare_recipes, sampling_variance

ACCURACY = Components(recipe_task=0.02, training=0.0001, training_task=0.005, sampling=0.004, predictions=32)
REPLICATES = 20_000


def simulated(c: Components, plan: Plan, difference: float) -> float:
    """Return the share of simulated comparisons with p < 0.05."""
    tasks_part = c.recipe_task / plan.tasks
    ratios = [x * 2 / plan.runs / tasks_part for x in (c.training, c.residual(plan.predictions) / plan.tasks)]
    rng = np.random.default_rng([plan.tasks, plan.runs])
    v = normal_variance((plan.runs, plan.runs), plan.tasks, *ratios, REPLICATES, rng)
    return float(np.mean(np.abs(v.delta + difference / math.sqrt(tasks_part)) > chosen(v)))


@pytest.mark.parametrize(
    "plan", [Plan(40, 2, 8), Plan(100, 3, 32), Plan(400, 3, 8), Plan(400, 5, 32), Plan(100, 10, 8)]
)
@pytest.mark.parametrize("training", [0.0, 0.0001, 0.001])
def test_power_is_that_of_simulated_comparisons(plan: Plan, training: float) -> None:
    components = Components(0.02, training, 0.005, 0.004, 32)
    for difference in (0.0, 0.01, 0.03):
        expected = simulated(components, plan, difference)
        assert power(components, plan, difference) == pytest.approx(expected, abs=0.025), difference
    resolved = resolvable_by_plan(components, plan)
    assert simulated(components, plan, resolved) == pytest.approx(POWER, abs=0.025)


def test_power_is_that_of_the_test_of_scores() -> None:
    c, plan, difference, rng = Components(0.02, 0.0004, 0.01), Plan(60, 4, 1), 0.04, np.random.default_rng(2)
    rejected = 0
    for _ in range(1_500):
        scores = []
        for recipe in (0, 1):
            tasks = 0.45 + rng.normal(0, math.sqrt(c.recipe_task / 2), plan.tasks) + difference * (recipe == 0)
            runs = tasks + rng.normal(0, math.sqrt(c.training), (plan.runs, 1))
            scores.append(runs + rng.normal(0, math.sqrt(c.training_task), (plan.runs, plan.tasks)))
        rejected += compare_recipes(*np.clip(scores, 0, 1)).p < 0.05
    assert rejected / 1_500 == pytest.approx(power(c, plan, difference), abs=0.04)


def test_many_runs_leave_the_paired_test_over_tasks() -> None:
    c = Components(0.04, 0.0001, 0.01)
    assert resolvable_by_plan(c, Plan(400, 5_000, 1)) == pytest.approx(resolvable_difference(0.2, 400), rel=0.02)


@given(st.integers(10, 400), st.integers(3, 12), st.sampled_from(PREDICTIONS))
@settings(deadline=None, max_examples=30)
def test_more_of_anything_resolves_more(tasks: int, runs: int, predictions: int) -> None:
    before = resolvable_by_plan(ACCURACY, Plan(tasks, runs, predictions))
    for more in (Plan(2 * tasks, runs, predictions), Plan(tasks, runs + 2, predictions), Plan(tasks, runs, 999)):
        # More tasks leave training a larger share of the variance, with fewer degrees of freedom: a small loss.
        assert resolvable_by_plan(ACCURACY, more) <= before * 1.03
    assert power(ACCURACY, Plan(tasks, runs, predictions), before) == pytest.approx(POWER, abs=1e-4)


def test_power_without_difference_is_the_level_of_the_test() -> None:
    for plan in (Plan(100, 2, 32), Plan(100, 3, 32), Plan(400, 10, 32)):
        assert 0 <= power(ACCURACY, plan, 0.0) < 0.06


def test_nothing_varies() -> None:
    nothing = Components(0.0, 0.0, 0.0)
    assert (resolvable_by_plan(nothing, Plan(10, 2, 1)), power(nothing, Plan(10, 2, 1), 0.01)) == (0.0, 1.0)


def test_components_are_recovered_from_pilot_runs() -> None:
    rng, tasks, runs, n = np.random.default_rng(4), 3_000, (40, 30), 16
    chance = 0.5 + rng.normal(0, 0.1, (2, 1, tasks))
    halves = []
    for recipe, number in enumerate(runs):
        p = chance[recipe] + rng.normal(0, 0.02, (number, 1)) + rng.normal(0, 0.05, (number, tasks))
        halves.append(rng.binomial(n // 2, np.broadcast_to(np.clip(p, 0, 1), (2, number, tasks))) / (n // 2))
    sampling = sampling_variance(*np.concatenate(halves, axis=1))
    variance = difference_variance(*(half.mean(axis=0) for half in halves))
    c = components_of(variance, n, sampling)
    assert c.recipe_task == pytest.approx(2 * 0.1**2, rel=0.1)
    assert c.training == pytest.approx(0.02**2, rel=0.4)
    assert c.training_task == pytest.approx(0.05**2, rel=0.1)
    assert c.sampling == pytest.approx(0.24 / n, rel=0.05)
    unknown = components_of(variance, n)
    assert (unknown.sampling, unknown.training_task) == (None, pytest.approx(c.training_task + c.sampling))
    assert standard_error(c, Plan(tasks, 35, n)) ** 2 == pytest.approx(float(variance.total), rel=0.05)


def test_components_of_adapters_give_their_variance_of_differences() -> None:
    c = components_of_adapters(0.2, 0.01, 32, 0.004)
    assert c.recipe_task + 2 * c.residual(32) == pytest.approx(0.04)
    assert (c.training, c.residual(64)) == (pytest.approx(0.0001), pytest.approx(0.002))
    with pytest.raises(ValueError, match="negative"):
        components_of_adapters(0.2, -0.01)


@pytest.mark.parametrize("prices", [Prices(1.0, 1e-5), Prices(0.01, 1e-3), Prices(0.0, 1e-3)])
def test_the_cheapest_plan_is_that_of_brute_force(prices: Prices) -> None:
    difference, most_tasks, most_runs = 0.05, 200, 6
    plan = cheapest_plan(ACCURACY, difference, prices, most_tasks, most_runs)
    affordable = [
        prices.cost(Plan(tasks, runs, predictions))
        for tasks, runs, predictions in itertools.product(
            range(10, most_tasks + 1, 10), range(2, most_runs + 1), PREDICTIONS
        )
        if power(ACCURACY, Plan(tasks, runs, predictions), difference) >= POWER
    ]
    assert plan is not None
    assert power(ACCURACY, plan, difference) >= POWER
    assert prices.cost(plan) <= min(affordable)


@given(
    st.tuples(*[st.floats(0.001, 0.1)] * 3),
    st.floats(0.02, 0.2),
    st.sampled_from([Prices(1.0, 1e-4), Prices(0.02, 1e-3), Prices(0.0, 1e-3), Prices(1.0, 0.0), Prices(0.0, 0.0)]),
    st.booleans(),
)
@settings(deadline=None, max_examples=15)
def test_the_cheapest_plan_is_that_of_the_whole_search(
    variances: tuple[float, float, float], difference: float, prices: Prices, known: bool
) -> None:
    recipe_task, training, rest = variances
    components = Components(recipe_task, training / 20, rest / 2, rest / 2 if known else None, 8)
    most_tasks, most_runs = 120, 5
    best: Plan | None = None
    for runs in range(2, most_runs + 1):
        for predictions in PREDICTIONS if known else (8,):
            tasks = tasks_for_plan(components, runs, predictions, difference, most_tasks)
            plan = None if tasks is None else Plan(tasks, runs, predictions)
            if plan and (best is None or prices.cost(plan) < prices.cost(best)):
                best = plan
    assert cheapest_plan(components, difference, prices, most_tasks, most_runs) == best


def test_what_no_plan_resolves_has_none() -> None:
    assert cheapest_plan(ACCURACY, 0.001, Prices(1, 1e-3), 400, 10) is None
    assert tasks_for_plan(ACCURACY, 3, 32, 0.05, 5) is None
    with pytest.raises(ValueError, match="above 0"):
        cheapest_plan(ACCURACY, 0.0, Prices(1, 1e-3), 400)


def test_without_known_sampling_the_number_of_predictions_stays() -> None:
    votes = Components(0.05, 0.0002, 0.05, None, 32)
    plan = cheapest_plan(votes, 0.06, Prices(1, 1e-4), 400, 12)
    assert plan is not None
    assert plan.predictions == 32
    assert {p.bought for p in purchases(votes, Plan(100, 3, 32), Prices(1, 1e-4), 50, 400)} == {
        "tasks",
        "training runs",
    }


def test_a_budget_goes_to_what_varies_most() -> None:
    prices, plan = Prices(1.0, 1e-4), Plan(100, 3, 8)
    components = {
        "tasks": Components(0.05, 1e-6, 0.001, 0.0001, 8),
        "training runs": Components(0.002, 0.001, 0.001, 0.0001, 8),
        "predictions": Components(0.0005, 1e-7, 0.0001, 0.05, 8),
    }
    for best, varying in components.items():
        bought = purchases(varying, plan, prices, 4.0, 800)
        assert bought[0].bought == best
        assert [p.resolvable for p in bought] == sorted(p.resolvable for p in bought)
        assert all(0 < p.price <= 4.0 for p in bought)
        assert bought[0].resolvable < 0.75 * resolvable_by_plan(varying, plan)


def test_a_budget_buys_no_more_tasks_than_there_are() -> None:
    bought = {p.bought: p for p in purchases(ACCURACY, Plan(100, 3, 8), Prices(100.0, 1e-6), 10.0, 120)}
    assert bought["tasks"].plan.tasks == 120
    assert "training runs" not in bought
    assert "tasks" not in {p.bought for p in purchases(ACCURACY, Plan(120, 3, 8), Prices(1, 1e-6), 10.0, 120)}


@pytest.mark.parametrize("numbers", [(1, 3, 8), (100, 1, 8), (100, 3, 0)])
def test_impossible_plans_are_refused(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="a plan needs"):
        Plan(*numbers)

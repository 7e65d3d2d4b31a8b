"""Prices of comparisons of recipes: the cheapest plan for a difference, and what to buy next."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, replace

from harness.stats.crossed_variance import FEWEST_RUNS
from harness.stats.power import POWER, Components, Plan, power, resolvable_by_plan

FEWEST_TASKS = 10
"""Fewest tasks of a plan: with fewer, no interval is printed."""
MOST_RUNS = 64
"""Most training runs per recipe that ``cheapest_plan`` considers."""
PREDICTIONS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Predictions per test output that ``cheapest_plan`` considers."""


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices in GPU-hours, or any other unit."""

    training_run: float
    prediction: float
    """Of one prediction for all test outputs of a task."""

    def cost(self, plan: Plan) -> float:
        """Return the price of a plan, for both recipes."""
        return 2 * plan.runs * (self.training_run + plan.tasks * plan.predictions * self.prediction)


@dataclass(frozen=True, slots=True)
class Purchase:
    """A plan after a sum was spent on one of its numbers."""

    bought: str
    """``tasks``, ``training runs`` or ``predictions``."""
    plan: Plan
    price: float
    """Price of what was added."""
    resolvable: float
    """Smallest difference that the plan resolves at 80 % power."""


def tasks_for_plan(
    components: Components, runs: int, predictions: int, difference: float, most_tasks: int, wanted: float = POWER
) -> int | None:
    """Return the fewest tasks that resolve a difference; None if ``most_tasks`` do not.

    With two training runs, where more tasks can resolve slightly less, a few fewer may do.
    """
    low, high = FEWEST_TASKS, most_tasks
    if high < low or power(components, Plan(high, runs, predictions), difference) < wanted:
        return None
    return _fewest(low, high, lambda number: power(components, Plan(number, runs, predictions), difference) >= wanted)


def _fewest(low: int, high: int, resolves: Callable[[int], bool]) -> int:
    """Return the smallest number from ``low`` to ``high`` that resolves, by bisection; ``high`` is known to."""
    return low + bisect_left(range(low, high), True, key=resolves)


def runs_for_plan(
    components: Components, tasks: int, predictions: int, difference: float, most_runs: int = MOST_RUNS
) -> int | None:
    """Return the fewest training runs of each recipe that resolve a difference at 80 % power.

    None if ``most_runs`` do not: then more tasks are needed, or the difference is 0.
    """
    low, high = FEWEST_RUNS, most_runs
    if not difference or power(components, Plan(tasks, high, predictions), difference) < POWER:
        return None
    return _fewest(low, high, lambda number: power(components, Plan(tasks, number, predictions), difference) >= POWER)


def predictions_for_plan(components: Components, tasks: int, runs: int, difference: float) -> int | None:
    """Return the fewest predictions per test output that resolve a difference at 80 % power.

    None if 256 do not, or if predictions do not count (see ``Components``).
    """
    low, high = 1, PREDICTIONS[-1]
    if components.sampling is None or power(components, Plan(tasks, runs, high), difference) < POWER:
        return None
    return _fewest(low, high, lambda number: power(components, Plan(tasks, runs, number), difference) >= POWER)


def cheapest_plan(
    components: Components, difference: float, prices: Prices, most_tasks: int, most_runs: int = MOST_RUNS
) -> Plan | None:
    """Return the cheapest plan that resolves a difference at 80 % power; None if none does.

    All numbers of runs from 2 to ``most_runs`` and the numbers of ``PREDICTIONS`` are tried, with the fewest tasks that
    each needs. For a further combination they are only searched for if as many tasks as cost less than the cheapest
    plan so far resolve the difference. Without a known sampling variance the number of predictions stays.

    Raises:
        ValueError: the difference is 0 or less.
    """
    if difference <= 0:
        raise ValueError(f"cannot plan for a difference of {difference}: it must be above 0")
    choices = [components.predictions] if components.sampling is None else PREDICTIONS
    best: Plan | None = None
    for runs in range(FEWEST_RUNS, most_runs + 1):
        for predictions in choices:
            most = (
                most_tasks if best is None else _tasks_below(prices, runs, predictions, prices.cost(best), most_tasks)
            )
            if tasks := tasks_for_plan(components, runs, predictions, difference, most):
                best = Plan(tasks, runs, predictions)
    return best


def _tasks_below(prices: Prices, runs: int, predictions: int, price: float, most_tasks: int) -> int:
    """Return the most tasks, up to ``most_tasks``, with which a plan costs less than a price; 0 if fewer than 10 do."""
    per_task = 2 * runs * predictions * prices.prediction
    left = price - 2 * runs * prices.training_run
    tasks = (
        min(most_tasks, math.floor(left / per_task) + 1) if per_task and left < per_task * most_tasks else most_tasks
    )
    while tasks >= FEWEST_TASKS and prices.cost(Plan(tasks, runs, predictions)) >= price:
        tasks -= 1
    return tasks if tasks >= FEWEST_TASKS else 0


def purchases(components: Components, plan: Plan, prices: Prices, budget: float, most_tasks: int) -> list[Purchase]:
    """Return what a budget buys if all of it is spent on tasks, training runs or predictions; the best one first.

    Whole tasks, training runs (of both recipes) and predictions per test output are bought. What the budget does not
    buy one of, or what does not count (see ``Components``), is left out.

    Args:
        plan: the numbers before the purchase.
        most_tasks: number of tasks that exist.
    """
    per_task = 2 * plan.runs * plan.predictions * prices.prediction
    per_run = prices.cost(replace(plan, runs=plan.runs + 1)) - prices.cost(plan)
    per_prediction = 2 * plan.runs * plan.tasks * prices.prediction
    more_tasks = min(_affordable(budget, per_task, most_tasks), max(most_tasks - plan.tasks, 0))
    options = [
        ("tasks", replace(plan, tasks=plan.tasks + more_tasks)),
        ("training runs", replace(plan, runs=plan.runs + _affordable(budget, per_run, MOST_RUNS))),
    ]
    if components.sampling is not None:
        more = _affordable(budget, per_prediction, PREDICTIONS[-1])
        options.append(("predictions", replace(plan, predictions=plan.predictions + more)))
    bought = [
        Purchase(name, after, prices.cost(after) - prices.cost(plan), resolvable_by_plan(components, after))
        for name, after in options
        if after != plan
    ]
    return sorted(bought, key=lambda purchase: purchase.resolvable)


def _affordable(budget: float, price: float, most: int) -> int:
    """Return how many a budget buys, up to ``most``, which is also what a price of 0 gives."""
    return most if price * most <= budget else math.floor(budget / price + 1e-9)

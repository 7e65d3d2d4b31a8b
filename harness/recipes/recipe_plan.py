"""Numbers of tasks, training runs and predictions that resolve a difference of recipes, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass, replace

from harness.recipes.pilot_runs import Pilot
from harness.stats.planning import (
    Prices,
    Purchase,
    cheapest_plan,
    predictions_for_plan,
    purchases,
    runs_for_plan,
    tasks_for_plan,
)
from harness.stats.power import Plan, resolvable_by_plan

MOST_TASKS = 10_000
"""Most tasks of a plan, unless a benchmark has fewer."""
_CURVE_TASKS = (10, 20, 30, 50, 70, 100, 150, 200, 300, 400, 600, 800, 1_000, 1_500, 2_000, 3_000, 5_000, 10_000)
_CURVE_RUNS = (*range(2, 13), 14, 16, 20, 24, 32)
_CURVE_PREDICTIONS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Spending:
    """What tasks, training runs and predictions cost, and what is bought best; prices in GPU-hours."""

    prices: Prices
    budget: float
    cheapest: Plan | None
    """The cheapest plan that resolves the difference; None if none does."""
    purchases: tuple[Purchase, ...]
    """What the budget buys beyond the pilot if all of it is spent on one of the three, the best first."""


@dataclass(frozen=True)
class RecipePlan:
    """A plan for the comparison of two recipes."""

    pilot: Pilot
    difference: float
    most_tasks: int
    resolvable: float
    """Smallest difference that the pilot's numbers resolve at 80 % power."""
    tasks: int | None
    """Tasks that resolve the difference, with the other numbers as in the pilot; None if ``most_tasks`` do not."""
    runs: int | None
    """Training runs of each recipe, likewise; None if 64 do not."""
    predictions: int | None
    """Predictions per test output, likewise; None if 256 do not, or if they do not count for the metric."""
    spending: Spending | None
    """None without prices."""


def make_plan(
    pilot: Pilot,
    difference: float,
    per_training: float | None = None,
    per_1000_predictions: float | None = None,
    budget: float | None = None,
    most_tasks: int = MOST_TASKS,
) -> RecipePlan:
    """Return what resolves a difference at 80 % power.

    Args:
        difference: a share, e.g. 0.01 for one point; above 0.
        per_training: GPU-hours of a training run; with ``per_1000_predictions``, both or neither.
        budget: GPU-hours to spend beyond the pilot; None for as much as the pilot's numbers cost.
        most_tasks: number of tasks that exist.
    """
    components, plan = pilot.components, pilot.plan
    spending = None
    if per_training is not None and per_1000_predictions is not None:
        prices = Prices(per_training, per_1000_predictions / 1000 * pilot.outputs_per_task)
        spent = prices.cost(plan) if budget is None else budget
        cheapest = cheapest_plan(components, difference, prices, most_tasks)
        bought = purchases(components, plan, prices, spent, most_tasks)
        spending = Spending(prices, spent, cheapest, tuple(bought))
    return RecipePlan(
        pilot=pilot,
        difference=difference,
        most_tasks=most_tasks,
        resolvable=resolvable_by_plan(components, plan),
        tasks=tasks_for_plan(components, plan.runs, plan.predictions, difference, most_tasks),
        runs=runs_for_plan(components, plan.tasks, plan.predictions, difference),
        predictions=predictions_for_plan(components, plan.tasks, plan.runs, difference),
        spending=spending,
    )


@dataclass(frozen=True)
class PowerCurve:
    """The smallest difference that is resolved at 80 % power, against one of the three numbers."""

    varied: str
    """``tasks``, ``training runs`` or ``predictions``."""
    label: str
    """What the other numbers are."""
    numbers: tuple[int, ...]
    resolvable: tuple[float, ...]


def power_curves(plan: RecipePlan) -> list[PowerCurve]:
    """Return the curves of a plan: over tasks for several numbers of training runs, then over runs and predictions.

    The numbers that do not vary are the pilot's. There is no curve over predictions if they do not count.
    """
    pilot, components = plan.pilot, plan.pilot.components
    tasks = sorted({*(t for t in _CURVE_TASKS if t < plan.most_tasks), pilot.plan.tasks, plan.most_tasks})
    cells = [
        ("tasks", _runs_text(runs), [replace(pilot.plan, tasks=t, runs=runs) for t in tasks])
        for runs in sorted({2, 3, 5, 10, pilot.plan.runs})
    ]
    runs = sorted({*_CURVE_RUNS, pilot.plan.runs})
    cells.append(("training runs", f"{pilot.plan.tasks} tasks", [replace(pilot.plan, runs=r) for r in runs]))
    if components.sampling is not None:
        numbers = sorted({*_CURVE_PREDICTIONS, pilot.plan.predictions})
        label = f"{pilot.plan.tasks} tasks, {_runs_text(pilot.plan.runs)}"
        cells.append(("predictions", label, [replace(pilot.plan, predictions=n) for n in numbers]))
    number = {"tasks": "tasks", "training runs": "runs", "predictions": "predictions"}
    return [
        PowerCurve(
            varied,
            label,
            tuple(getattr(p, number[varied]) for p in plans),
            tuple(resolvable_by_plan(components, p) for p in plans),
        )
        for varied, label, plans in cells
    ]


def _runs_text(runs: int) -> str:
    return f"{runs} training runs"

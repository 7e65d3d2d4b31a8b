"""Format the plan of a comparison of recipes as text and as JSON."""

from __future__ import annotations

import math
from dataclasses import asdict

from harness.recipes.pilot_runs import Pilot
from harness.recipes.recipe_plan import RecipePlan, Spending
from harness.results.table_format import markdown_table
from harness.stats.crossed_variance import FEWEST_RUNS
from harness.stats.planning import MOST_RUNS, PREDICTIONS
from harness.stats.power import POWER, Plan


def plan_text(plan: RecipePlan) -> str:
    """Return a plan as text: what the pilot shows, what resolves the difference, and what to buy."""
    pilot = plan.pilot
    recipes = "; ".join(f"{recipe.name} ({', '.join(recipe.names)})" for recipe in pilot.recipes)
    parts = [
        f"{pilot.metric}; pilot runs by recipe: {recipes}",
        _variances(pilot),
        "\n".join([*pilot.assumptions, _pilot_sentence(plan)]),
        _needed(plan),
    ]
    if pilot.components.sampling is None:
        parts.append(
            f"Predictions do not count here: how much sampling varies {pilot.metric} is not known. It is known for "
            "means over drawn predictions, such as accuracy, from at least two runs with two predictions or more."
        )
    if plan.spending is not None:
        parts += _spending(plan, plan.spending)
    return "\n\n".join(parts)


def plan_json(plan: RecipePlan) -> dict[str, object]:
    """Return a plan for another program; variances and differences are of shares, prices in GPU-hours."""
    pilot, spending = plan.pilot, plan.spending
    prices = None
    if spending is not None:
        cheapest = spending.cheapest
        prices = {
            **asdict(spending.prices),
            "budget": spending.budget,
            "cheapest": None if cheapest is None else {**asdict(cheapest), "price": spending.prices.cost(cheapest)},
            "purchases": [asdict(purchase) for purchase in spending.purchases],
        }
    return {
        "metric": pilot.metric,
        "recipes": {recipe.name: list(recipe.names) for recipe in pilot.recipes},
        "pilot": asdict(pilot.plan),
        "components": asdict(pilot.components),
        "assumptions": list(pilot.assumptions),
        "power": POWER,
        "resolvable": plan.resolvable,
        "difference": plan.difference,
        "needed": {"tasks": plan.tasks, "runs": plan.runs, "predictions": plan.predictions},
        "spending": prices,
    }


def _variances(pilot: Pilot) -> str:
    """Return a table of standard deviations in points."""
    c = pilot.components
    rows = [
        ("effect of the recipe, over tasks", c.recipe_task),
        ("training runs, on the mean over tasks", c.training),
        ("training run × task" + (", with sampling" if c.sampling is None else ""), c.training_task),
    ]
    if c.sampling is not None:
        rows.append((f"sampling of {c.predictions} predictions, on a task", c.sampling))
    cells = [[text, f"{100 * math.sqrt(variance):.1f}"] for text, variance in rows]
    return markdown_table(["what varies", "standard deviation, points"], cells)


def _pilot_sentence(plan: RecipePlan) -> str:
    """Return what the pilot's own numbers resolve, with a hint where there are more runs of one recipe."""
    numbers = _numbers(plan.pilot.plan)
    if plan.resolvable >= 1:
        return f"With {numbers}, no difference is resolved at 80 % power: it would have to exceed 100 points."
    sentence = f"With {numbers}, a true difference of {100 * plan.resolvable:.1f} points is resolved at 80 % power."
    if plan.pilot.plan.runs == FEWEST_RUNS:
        sentence += " With two training runs, more tasks may resolve slightly less (few degrees of freedom)."
    return sentence


def _needed(plan: RecipePlan) -> str:
    """Return a table of what resolves the difference if one number changes."""
    pilot = plan.pilot.plan
    rows = [
        ("tasks", pilot.tasks, plan.tasks, plan.most_tasks),
        ("training runs of each recipe", pilot.runs, plan.runs, MOST_RUNS),
    ]
    if plan.pilot.components.sampling is not None:
        rows.append(("predictions per test output", pilot.predictions, plan.predictions, PREDICTIONS[-1]))
    cells = [
        [text, f"{now:,}", f"{most:,} are not enough" if needed is None else f"{needed:,}"]
        for text, now, needed, most in rows
    ]
    return markdown_table(["changed alone", "now", f"resolves {100 * plan.difference:g} points"], cells)


def _spending(plan: RecipePlan, spending: Spending) -> list[str]:
    """Return the cheapest plan as a sentence, and a table of what the budget buys."""
    points = f"{100 * plan.difference:g} points"
    if spending.cheapest is None:
        parts = [f"No plan with up to {plan.most_tasks:,} tasks and {MOST_RUNS} training runs resolves {points}."]
    else:
        price = spending.prices.cost(spending.cheapest)
        parts = [f"Cheapest plan that resolves {points}: {_numbers(spending.cheapest)}; {price:,.4g} GPU-hours in all."]
    if not spending.purchases:
        return [*parts, f"{spending.budget:,.4g} GPU-hours buy no further task, training run or prediction."]
    cells = [[p.bought, _numbers(p.plan), f"{p.price:,.4g}", _points(p.resolvable)] for p in spending.purchases]
    header = [f"{spending.budget:,.4g} GPU-hours more for", "gives", "GPU-hours", "resolves, points"]
    best = spending.purchases[0]
    if best.resolvable > 1:
        sentence = "None of these purchases lets the comparison resolve less than 100 points."
    elif best.resolvable < plan.resolvable:
        sentence = f"This money is best spent on {best.bought}: {_points(plan.resolvable)} points become "
        sentence += f"{_points(best.resolvable)}."
    else:
        sentence = "None of these purchases lets the comparison resolve less than the pilot's numbers do."
    return [*parts, markdown_table(header, cells, left=2), sentence]


def _points(difference: float) -> str:
    """Return a difference in points."""
    return "over 100" if difference > 1 else f"{100 * difference:.2f}"


def _numbers(plan: Plan) -> str:
    """Return the numbers of a plan in words."""
    predictions = f"{plan.predictions} prediction{'s' * (plan.predictions != 1)} per test output"
    return f"{plan.tasks:,} tasks, {plan.runs} training runs of each recipe, {predictions}"

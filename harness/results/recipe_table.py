"""Format comparisons of recipes as tables, as sentences and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from harness.recipes.recipe_comparison import ComparedRecipes
from harness.recipes.recipe_runs import RecipeRuns
from harness.results.comparison_table import corrected_together, verdict_text
from harness.results.table_format import difference_interval, markdown_table, p_value, percent, points

ADAPTERS_ONLY = (
    "Each model here is compared as a model. Where it is one training run of a recipe, nothing is known about other "
    "training runs of that recipe: the figures do not say which recipe is better."
)
"""Label of comparisons of single training runs."""


def recipes_text(recipes: Sequence[RecipeRuns], rows: Sequence[ComparedRecipes]) -> str:
    """Return the training runs of recipes, their comparisons, and what the variance of these consists of."""
    parts = [recipe_list(recipes), recipe_table(rows), recipe_footnote(rows), shares_table(rows), shares_footnote()]
    return "\n\n".join(parts)


def recipe_table(rows: Sequence[ComparedRecipes]) -> str:
    """Return a table with one row per comparison; differences are in percentage points."""
    header = ["metric", "recipe", "against", "training runs", "difference", "interval", "won / lost", "p", "p (Holm)"]
    return markdown_table([*header, "runs wanted", "verdict"], [_cells(row) for row in rows], left=3)


def _cells(row: ComparedRecipes) -> list[str]:
    c = row.comparison
    runs = f"{c.runs[0]} pairs" if c.paired else f"{c.runs[0]} and {c.runs[1]}"
    tasks = f"{c.won} / {c.lost} of {c.tasks}"
    return [row.metric, row.recipe, row.baseline, runs, points(c.delta), difference_interval(c), tasks,
            p_value(c.p), p_value(c.p_holm), runs_wanted(row), c.verdict]  # fmt: skip


def runs_wanted(row: ComparedRecipes) -> str:
    """Return how many training runs of each recipe resolve the observed difference, if more than there are."""
    if row.runs_needed is not None:
        return str(row.runs_needed) if needs_more_runs(row) else "–"
    return "–" if row.comparison.shares is None or not row.comparison.delta else "more tasks"


def needs_more_runs(row: ComparedRecipes) -> bool:
    """Return whether one of the recipes has fewer training runs than resolve the observed difference."""
    return row.runs_needed is not None and row.runs_needed > min(row.comparison.runs)


def recipe_footnote(rows: Sequence[ComparedRecipes], family: int | None = None) -> str:
    """Return a sentence that explains the columns of ``recipe_table``.

    Args:
        family: the number of comparisons that were corrected together, if more than these.
    """
    over = corrected_together(len(rows), family)
    text = (
        "Recipes, not adapters: percentage points with 95 % intervals over tasks and training runs (Student's t), for "
        f"other tasks of this kind and other training runs of both recipes; p Holm-corrected over {over}; runs wanted: "
        "training runs of each recipe, where more than there are, that resolve the observed difference on as many "
        "tasks at 80 % power (more tasks: 64 runs do not)."
    )
    if any(2 in row.comparison.runs for row in rows):
        text += " With two training runs of a recipe the intervals are wider than they need to be."
    return text


def shares_table(rows: Sequence[ComparedRecipes]) -> str:
    """Return a table of what the variance of each difference consists of."""
    cells = []
    for row in rows:
        c, shares = row.comparison, row.comparison.shares
        if shares is None:
            cells.append([row.metric, row.recipe, row.baseline, "0.0", *["–"] * 5])
            continue
        parts = (shares.tasks, shares.training, shares.training_tasks)
        freedom = "–" if c.degrees_of_freedom is None else f"{c.degrees_of_freedom:.1f}"
        sampling = "not measured" if shares.sampling is None else percent(shares.sampling)
        cells.append([row.metric, row.recipe, row.baseline, f"{100 * c.standard_error:.1f}", freedom,
                      *map(percent, parts), sampling])  # fmt: skip
    header = ["metric", "recipe", "against", "standard error", "degrees of freedom"]
    return markdown_table([*header, "tasks", "training", "training × tasks", "sampling"], cells, left=3)


def shares_footnote() -> str:
    """Return a sentence that explains the columns of ``shares_table``."""
    return (
        "Standard error in points; then what its square consists of: tasks that respond differently to the two "
        "recipes, training runs that differ on all tasks alike, training runs that differ from task to task, and "
        "sampling of predictions (from half-splits of them; where it is not measured it is in training × tasks)."
    )


def recipe_list(recipes: Sequence[RecipeRuns]) -> str:
    """Return a list of recipes with their training runs."""
    return "\n".join(f"{r.name}: {training_runs(len(r.models))} ({', '.join(r.names)})" for r in recipes)


def training_runs(count: int) -> str:
    """Return ``1 training run``, ``2 training runs`` and so on."""
    return f"{count} training run{'' if count == 1 else 's'}"


def recipe_text(row: ComparedRecipes, shown: int | None = None) -> str:
    """Return the verdict of a comparison in words, with the ids of the tasks won and lost.

    Args:
        shown: the most ids to list of each; None lists all.
    """
    needed = f"{training_runs(row.runs_needed or 0)} of each recipe" if needs_more_runs(row) else None
    return verdict_text(row, f"recipe {row.recipe}", needed, shown)


def recipes_json(rows: Sequence[ComparedRecipes]) -> list[dict[str, object]]:
    """Return the comparisons for another program: all fields and all task ids."""
    return [asdict(row) for row in rows]

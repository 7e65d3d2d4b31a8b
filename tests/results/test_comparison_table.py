"""What is said about paired comparisons beside their figures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness.recipes.recipe_comparison import ComparedRecipes
from harness.results.comparison_table import comparison_text
from harness.results.recipe_table import recipe_text, runs_wanted
from harness.scoring.paired_comparison import PairedComparison
from harness.stats.paired_test import compare, tasks_needed
from harness.stats.recipes import compare_recipes


def paired(differences: list[float]) -> PairedComparison:
    """Return a comparison of these differences that is not resolved."""
    comparison = replace(compare(np.maximum(differences, 0), -np.minimum(differences, 0))[0], verdict="not resolved")
    return PairedComparison("accuracy", "new", "old", comparison, ("t",) * comparison.won, ("t",) * comparison.lost)


def test_tasks_are_advised_only_where_they_are_more_than_there_are() -> None:
    few = paired([0.5] * 9 + [0.0] * 3)
    assert (few.comparison.tasks_for(few.comparison.delta) or 0) <= 12
    assert "takes about" not in comparison_text(few)
    many = paired([0.5, -0.5] * 6 + [0.5])
    needed = many.comparison.tasks_for(many.comparison.delta)
    assert needed is not None
    assert f"(a difference of this size takes about {needed:,} tasks)" in comparison_text(many)


def test_no_test_of_signs_finds_anything_with_five_tasks() -> None:
    assert compare(np.ones(5), np.zeros(5))[0].p > 0.05 > compare(np.ones(6), np.zeros(6))[0].p
    assert tasks_needed(0.01, 0.9) == 6


@pytest.mark.parametrize(("needed", "shown"), [(5, "5"), (3, "–"), (2, "–"), (None, "more tasks")])
def test_runs_are_wanted_only_where_they_are_more_than_there_are(needed: int | None, shown: str) -> None:
    values = np.random.default_rng(1).random((2, 3, 20))
    comparison = replace(compare_recipes(*values), verdict="not resolved")
    names = ("0", "1", "2")
    row = ComparedRecipes("accuracy", "b", "a", names, names, comparison, ("t",), (), runs_needed=needed)
    assert runs_wanted(row) == shown
    assert ("takes about 5 training runs of each recipe" in recipe_text(row)) == (shown == "5")
    assert ("takes about" in recipe_text(row)) == (shown == "5")

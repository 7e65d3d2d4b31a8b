"""False alarms between training runs of one recipe: over tasks alone, and over tasks and training runs."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.recipes.splits import different_pairs, different_splits
from harness.stats.paired_test import compare
from harness.stats.recipes import compare_recipes


def runs_of_one_recipe(training: float) -> np.ndarray:
    rng = np.random.default_rng(3)
    chance = np.clip(rng.beta(1, 1, 200) + rng.normal(0, training, (20, 1)), 0, 1)
    return rng.binomial(32, chance) / 32


def test_runs_that_differ_are_called_different_over_tasks_alone() -> None:
    scores = runs_of_one_recipe(0.03)
    assert different_pairs(scores, 32) > 0.5
    assert different_splits(scores, 3, 300) < 0.1
    assert different_splits(scores, 10, 300) < 0.1


def test_runs_that_differ_by_sampling_only_are_not() -> None:
    scores = runs_of_one_recipe(0.0)
    assert different_pairs(scores, 32) < 0.15
    assert different_splits(scores, 3, 300) < 0.1


def test_shares_are_those_of_the_single_tests() -> None:
    scores = runs_of_one_recipe(0.02)[:6]
    pairs = [compare(scores[i], scores[j], 32)[0].p < 0.05 for i in range(6) for j in range(i + 1, 6)]
    assert different_pairs(scores, 32) == np.mean(pairs)
    rng, order = np.random.default_rng([1, 3]), []
    for _ in range(20):
        order.append(rng.permutation(6))
    splits = [compare_recipes(scores[o[:3]], scores[o[3:]]).p < 0.05 for o in order]
    assert different_splits(scores, 3, 20, seed=1) == np.mean(splits)


def test_too_few_runs_are_refused() -> None:
    with pytest.raises(ValueError, match="5 runs cannot be split into twice 3"):
        different_splits(np.zeros((5, 10)), 3)

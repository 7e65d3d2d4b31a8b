"""The page about truly equal recipes: its shares against single tests, from made-up training runs."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from benchmarks.recipes.evidence import SWEEP, page, scores_of, share_of_pairs, share_of_splits
from harness.cli.workflows.sweep.sweep_file import load_sweep
from harness.stats.paired_test import compare
from tests.support.runs.run_folders import write_run

N = 8


def training_runs(runs: int, spread: float, seed: int = 0) -> np.ndarray:
    """Return scores of training runs of one recipe, shape (runs, 60)."""
    rng = np.random.default_rng(seed)
    p = np.clip(rng.uniform(0.2, 0.8, 60) + spread * rng.standard_normal((runs, 1)), 0, 1)
    return rng.binomial(N, p) / N


def test_pairs_are_tested_one_by_one() -> None:
    scores = training_runs(5, 0.15)
    pairs, share = share_of_pairs(scores, N)
    single = [compare([a], [b], N)[0].p < 0.05 for a, b in itertools.combinations(scores, 2)]
    assert (pairs, share) == (10, pytest.approx(100 * np.mean(single)))
    assert 0 < share < 100


def test_equal_recipes_are_seldom_called_different_over_training_runs() -> None:
    splits = share_of_splits(training_runs(20, 0.1), N, 3, splits=200)
    assert splits.over_both < 12
    assert splits.over_tasks > 30
    assert share_of_splits(training_runs(20, 0.0), N, 3, splits=200).over_tasks < 15


def test_the_page_has_a_row_for_every_size_of_groups() -> None:
    text = page({"accuracy": training_runs(6, 0.1)}, N, splits=20)
    assert "trained with 6 seeds" in text
    assert [line.split("|")[2].strip() for line in text.splitlines() if line.startswith("| accuracy")][1:] == [
        "1 and 1",
        "2 and 2",
        "3 and 3",
    ]


def test_scores_are_read_from_run_folders(tmp_path: Path) -> None:
    runs = [write_run(tmp_path, f"same-s{k}", "toy/cross/evaluation#n=12", {f"same-s{k}": 0.5}, N) for k in range(3)]
    scores, n = scores_of(runs)
    assert (n, scores["accuracy"].shape, scores["vote_2"].shape) == (N, (3, 12), (3, 12))


def test_the_sweep_has_one_recipe_with_20_seeds(tmp_path: Path) -> None:
    sweep = load_sweep(SWEEP, (), tmp_path)
    assert (len(sweep.table_rows()), len(sweep.seeds)) == (1, 20)

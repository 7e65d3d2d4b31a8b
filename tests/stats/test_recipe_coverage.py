"""Coverage of intervals of recipes by simulation (benchmarks/coverage.py does more), with a control that must fail."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.recipes import beyond, grid, methods, page
from benchmarks.recipes.population import Recipes, expected_score, mean_over
from harness.stats.crossed_variance import difference_variance

REPLICATES = 10_000


@pytest.mark.parametrize("runs", [(2, 2), (3, 3), (10, 10), (3, 10)])
def test_normal_scores_are_covered_and_the_control_is_not(runs: tuple[int, int]) -> None:
    cells = grid.normal_cells(runs, False, 100, REPLICATES)
    missed = page.missed(cells)
    # The bounds are met up to the Monte Carlo error, of which three standard errors are 0.7 points.
    ours = [cell.covered["harness"] for cell in cells]
    assert min(ours) > page.LOWEST - 0.7, missed
    assert max(ours) < (100 if 2 in runs else page.HIGHEST_SMALL)
    assert min(cell.covered["tasks only"] for cell in cells) < 88
    if 2 in runs:
        assert min(ours) > page.CONSERVATIVE


@pytest.mark.parametrize("runs", [3, 10])
def test_pairs_of_runs_are_covered(runs: int) -> None:
    cells = grid.normal_cells((runs, runs), True, 100, REPLICATES)
    ours = [cell.covered["harness"] for cell in cells]
    assert page.LOWEST - 0.7 < min(ours) <= max(ours) < page.HIGHEST_SMALL


def test_mean_squares_of_normal_scores_are_drawn_as_from_scores() -> None:
    rng = np.random.default_rng(1)
    runs, tasks, ratio, interaction, replicates = (3, 5), 20, 0.5, 1.0, 4_000
    total = 1 / 3 + 1 / 5
    difficulty = rng.normal(0, 5, tasks)
    recipe_task = rng.normal(0, np.sqrt(tasks / 2), (2, replicates, 1, tasks))
    scores = [
        recipe_task[r]
        + rng.normal(0, np.sqrt(ratio / total), (replicates, runs[r], 1))
        + rng.normal(0, np.sqrt(interaction * tasks / total), (replicates, runs[r], tasks))
        + difficulty
        for r in (0, 1)
    ]
    drawn = difference_variance(scores[0], scores[1])
    direct = grid.normal_variance(runs, tasks, ratio, interaction, replicates, rng)
    for name in ("over_tasks", "training", "interaction", "total", "degrees_of_freedom"):
        one, other = getattr(drawn, name), getattr(direct, name)
        assert np.quantile(one, [0.1, 0.5, 0.9]) == pytest.approx(np.quantile(other, [0.1, 0.5, 0.9]), rel=0.12), name
        assert one.mean() == pytest.approx(other.mean(), rel=0.06), name
    assert direct.total.mean() > 1 + ratio + interaction  # training below 0 counts as 0


@pytest.mark.parametrize("metric", grid.METRICS)
def test_true_values_of_the_population_are_those_of_its_scores(metric: str) -> None:
    base = Recipes(metric, 0.1, 0.05, pairing=0.5)
    recipes = base.with_training(1.0, (4, 4), 50).with_difference(0.1)
    assert recipes.true_difference() == pytest.approx(0.1, abs=1e-5)
    assert mean_over(expected_score(metric), 1.0) == pytest.approx(
        {"accuracy": 0.13, "vote_2": 0.247}[metric], abs=0.01
    )
    rng = np.random.default_rng(3)
    differ = difference_variance(*recipes.draw((4, 4), 50, 4_000, rng), paired=True)
    assert differ.delta.mean() == pytest.approx(0.1, abs=0.004)
    without = base.with_training(1.0, (4, 4), 50)
    v = difference_variance(*without.draw((4, 4), 50, 6_000, rng), paired=True)
    (runs,) = v.run_sets
    tasks_part = (v.over_tasks - v.interaction).mean()
    assert (runs.between - runs.interaction).mean() / tasks_part == pytest.approx(1, abs=0.12)
    assert 50 * tasks_part == pytest.approx(without.recipe_task_variance(), rel=0.05)


def test_the_pigeonhole_variance_is_that_of_its_resamples() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.random((3, 12)) + rng.random((3, 1)), rng.random((4, 12)) + rng.random((1, 12))
    resampled = []
    for _ in range(30_000):
        tasks = rng.integers(0, 12, 12)
        ours, theirs = rng.integers(0, 3, 3), rng.integers(0, 4, 4)
        resampled.append(a[np.ix_(ours, tasks)].mean() - b[np.ix_(theirs, tasks)].mean())
    assert methods.pigeonhole_variance(difference_variance(a, b)) == pytest.approx(np.var(resampled), rel=0.03)


@pytest.mark.parametrize("runs", [(3, 3), (2, 5)])
def test_two_way_clusters_are_those_of_a_regression_with_task_effects(runs: tuple[int, int]) -> None:
    rng = np.random.default_rng(6)
    tasks = 8
    y = rng.random((sum(runs), tasks)) + rng.random((sum(runs), 1)) + rng.random(tasks)
    recipe = np.repeat([1.0, 0.0], runs)[:, None] * np.ones(tasks)
    x = np.column_stack([recipe.ravel(), np.tile(np.eye(tasks), (sum(runs), 1))])
    residual = y.ravel() - x @ np.linalg.lstsq(x, y.ravel(), rcond=None)[0]
    bread = np.linalg.inv(x.T @ x)

    def clustered(groups: np.ndarray) -> float:
        sums = np.stack([(x * residual[:, None])[groups == g].sum(axis=0) for g in np.unique(groups)])
        return float((bread @ sums.T @ sums @ bread)[0, 0])

    run_of, task_of = np.divmod(np.arange(y.size), tasks)
    by_run, by_task = clustered(run_of) * sum(runs) / (sum(runs) - 1), clustered(task_of) * tasks / (tasks - 1)
    expected = by_run + by_task - clustered(np.arange(y.size))
    v = difference_variance(y[: runs[0]], y[runs[0] :])
    assert methods.two_way_cluster_variance(v) == pytest.approx(expected, rel=1e-9)


def test_the_published_coverage_of_recipes_is_within_bounds() -> None:
    text = (Path(__file__).parents[2] / "benchmarks" / "coverage.md").read_text(encoding="utf-8")
    table = text[text.index("\n| method ") :].strip().split("\n\n")[0].splitlines()
    names, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    cells = {row[0]: dict(zip(names[1:], row[1:], strict=True)) for row in rows}
    assert {"2", "3", "5", "10", "3 and 10", "3 pairs"} <= set(cells["harness"])
    for design, figures in cells["harness"].items():
        lowest, small, large = map(float, figures.split(" / "))
        if design == "2":
            assert lowest >= page.CONSERVATIVE
        else:
            assert lowest >= page.LOWEST, design
            assert small <= page.HIGHEST_SMALL, design
            assert large <= page.HIGHEST, design
        assert float(cells[page.CONTROL][design].split(" / ")[0]) < 90, design


@pytest.mark.parametrize("effects", beyond.EFFECTS)
def test_training_runs_that_are_not_normal_are_covered_too(effects: str) -> None:
    rng = np.random.default_rng(8)
    drawn = beyond.EFFECTS[effects](rng, (200_000,))
    assert drawn.mean() == pytest.approx(0, abs=0.01)
    assert drawn.var() == pytest.approx(1, rel=0.2)
    v = beyond.variance(effects, (5, 5), 1.0, 1_500, rng)
    assert np.mean(np.abs(v.delta) <= methods.chosen(v)) > 0.92
    assert np.mean(np.abs(v.delta) <= methods.tasks_only(v)) < 0.9

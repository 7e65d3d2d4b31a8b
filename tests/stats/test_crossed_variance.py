"""Variance of a difference of recipes against plain formulas, and what it must not depend on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_ind, ttest_rel

from harness.stats.crossed_variance import (
    DifferenceVariance,
    RunVariance,
    difference_variance,
    least_degrees_of_freedom,
    satterthwaite,
)


def plain_parts(scores: np.ndarray) -> tuple[float, float, float]:
    """Return the mean squares of runs, tasks and the residual by sums over cells, as textbooks write them."""
    runs, tasks = scores.shape
    mean = scores.sum() / scores.size
    between = sum(tasks * (scores[s].mean() - mean) ** 2 for s in range(runs)) / (runs - 1)
    over_tasks = sum(runs * (scores[:, t].mean() - mean) ** 2 for t in range(tasks)) / (tasks - 1)
    total = sum((scores[s, t] - mean) ** 2 for s in range(runs) for t in range(tasks))
    residual = total - between * (runs - 1) - over_tasks * (tasks - 1)
    return between, over_tasks, residual / ((runs - 1) * (tasks - 1))


@given(st.integers(2, 5), st.integers(2, 5), st.integers(2, 7), st.integers(0, 2**32))
@settings(deadline=None)
def test_contributions_equal_the_mean_squares_of_textbooks(ours: int, theirs: int, tasks: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.random((ours, tasks)), rng.random((theirs, tasks))
    variance = difference_variance(a, b)
    for runs, scores in zip(variance.run_sets, (a, b), strict=True):
        between, _, residual = plain_parts(scores)
        assert runs.between == pytest.approx(between / scores.size, rel=1e-9)
        assert runs.interaction == pytest.approx(residual / scores.size, rel=1e-6, abs=1e-12)
    differences = a.mean(axis=0) - b.mean(axis=0)
    assert variance.delta == pytest.approx(a.mean() - b.mean())
    assert variance.over_tasks == pytest.approx(differences.var(ddof=1) / tasks)


def test_paired_runs_are_the_runs_of_their_differences() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.random((4, 30)), rng.random((4, 30))
    (runs,) = difference_variance(a, b, paired=True).run_sets
    between, _, residual = plain_parts(a - b)
    assert (runs.runs, runs.between) == (4, pytest.approx(between / 120))
    assert runs.interaction == pytest.approx(residual / 120)


def test_without_tasks_that_matter_it_is_welchs_test_of_the_runs_means() -> None:
    rng = np.random.default_rng(1)
    a, b = (np.repeat(rng.random((runs, 1)), 40, axis=1) for runs in (3, 7))
    variance = difference_variance(a, b)
    welch = ttest_ind(a[:, 0], b[:, 0], equal_var=False)
    assert variance.delta / np.sqrt(variance.total) == pytest.approx(welch.statistic)
    assert variance.degrees_of_freedom == pytest.approx(welch.df)


def test_equal_runs_leave_the_paired_t_test_over_tasks() -> None:
    rng = np.random.default_rng(2)
    a, b = (np.repeat(rng.random((1, 25)), 3, axis=0) for _ in range(2))
    variance = difference_variance(a, b)
    by_task = ttest_rel(a[0], b[0])
    assert variance.training == pytest.approx(0, abs=1e-15)
    assert variance.delta / np.sqrt(variance.total) == pytest.approx(by_task.statistic)
    assert variance.degrees_of_freedom == pytest.approx(by_task.df)


@given(st.integers(0, 2**32), st.booleans(), st.floats(0.01, 100))
@settings(deadline=None)
def test_order_and_scale_do_not_matter(seed: int, paired: bool, scale: float) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.random((3, 12)), rng.random((3, 12))
    tasks, ours = rng.permutation(12), rng.permutation(3)
    theirs = ours if paired else rng.permutation(3)
    before = difference_variance(a, b, paired)
    after = difference_variance(scale * a[ours][:, tasks], scale * b[theirs][:, tasks], paired)
    assert after.delta == pytest.approx(scale * before.delta, rel=1e-9, abs=1e-13 * scale)
    assert after.total == pytest.approx(scale**2 * before.total, rel=1e-9)
    assert after.degrees_of_freedom == pytest.approx(before.degrees_of_freedom, rel=1e-6)
    swapped = difference_variance(b, a, paired)
    assert (swapped.delta, swapped.total) == (pytest.approx(-before.delta), pytest.approx(before.total))


def test_a_difficulty_that_all_runs_share_cancels() -> None:
    rng = np.random.default_rng(4)
    a, b, difficulty = rng.random((3, 20)), rng.random((5, 20)), 100 * rng.random(20)
    plain, harder = difference_variance(a, b), difference_variance(a + difficulty, b + difficulty)
    assert harder.total == pytest.approx(plain.total, rel=1e-9)
    assert harder.training == pytest.approx(plain.training, rel=1e-9)


def test_batches_equal_single_differences() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.random((6, 3, 15)), rng.random((6, 4, 15))
    batch = difference_variance(a, b)
    for i in range(6):
        single = difference_variance(a[i], b[i])
        assert batch.total[i] == pytest.approx(single.total)
        assert batch.degrees_of_freedom[i] == pytest.approx(single.degrees_of_freedom)


def test_degrees_of_freedom_are_those_of_the_formula() -> None:
    parts = [np.array(4.0), np.array(1.0), np.array(0.0)]
    assert satterthwaite(parts, [10, 2, 2]) == pytest.approx(25 / (16 / 10 + 1 / 2))
    assert least_degrees_of_freedom(parts, [10, 2, 2]) == pytest.approx(5 / (4 / 10 + 1 / 2))
    assert np.isnan(satterthwaite([np.array(0.0)], [3]))


@given(st.lists(st.tuples(st.floats(1e-6, 1e6), st.integers(1, 400)), min_size=1, max_size=5))
def test_the_lower_bound_is_one(parts: list[tuple[float, int]]) -> None:
    values, freedom = [np.array(v) for v, _ in parts], [f for _, f in parts]
    least = float(least_degrees_of_freedom(values, freedom))
    assert min(freedom) * (1 - 1e-9) <= least <= float(satterthwaite(values, freedom)) * (1 + 1e-9)


def test_two_runs_have_fewer_degrees_of_freedom() -> None:
    def variance(runs: int) -> DifferenceVariance:
        sets = (RunVariance(runs, np.array(1.0), np.array(0.4)), RunVariance(5, np.array(0.2), np.array(0.3)))
        return DifferenceVariance((runs, 5), 101, np.array(0.0), np.array(2.0), sets)

    assert variance(3).degrees_of_freedom == pytest.approx(2.6**2 / (4 / 100 + 0.6**2 / 2))
    assert variance(2).degrees_of_freedom == pytest.approx(3.2 / (2 / 100 + 1 / 1 + 0.2 / 4))


def test_pairs_of_runs_have_the_lower_bound() -> None:
    pairs = RunVariance(4, np.array(1.0), np.array(0.4))
    variance = DifferenceVariance((4, 4), 101, np.array(0.0), np.array(2.0), (pairs,))
    assert variance.degrees_of_freedom == pytest.approx(2.6 / (2 / 100 + 0.6 / 3))


@pytest.mark.parametrize(
    ("ours", "theirs", "paired", "words"),
    [
        ((1, 20), (5, 20), False, "values has 1 training run.*nothing is known"),
        ((5, 20), (1, 20), False, "baseline has 1 training run.*nothing is known"),
        ((3, 20), (3, 21), False, "20 tasks cannot be paired with 21"),
        ((3, 20), (4, 20), True, "3 training runs cannot be paired with 4"),
        ((3, 1), (3, 1), False, "1 task"),
        ((20,), (20,), False, "shape"),
    ],
)
def test_what_cannot_be_estimated_is_refused(ours: tuple, theirs: tuple, paired: bool, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        difference_variance(np.zeros(ours), np.zeros(theirs), paired)


def test_missing_scores_are_refused() -> None:
    scores = np.zeros((3, 20))
    holed = scores.copy()
    holed[1, 7] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        difference_variance(scores, holed)

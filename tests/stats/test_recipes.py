"""Comparison of recipes: interval, test, shares of variance, verdict and edge cases."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t as student

from harness.stats.crossed_variance import difference_variance
from harness.stats.recipes import compare_recipes, correct_recipes, sampling_variance
from harness.stats.sign_tests import mcnemar


def scores(seed: int, runs: int, tasks: int, level: float = 0.3, training: float = 0.0) -> np.ndarray:
    """Return scores of training runs that share the difficulty of tasks, for one seed the same."""
    difficulty = np.random.default_rng(99).uniform(-0.2, 0.2, tasks)
    rng = np.random.default_rng(seed)
    means = level + difficulty + rng.normal(0, training, (runs, 1))
    return np.clip(means + rng.normal(0, 0.05, (runs, tasks)), 0, 1)


def test_interval_and_p_are_students() -> None:
    a, b = scores(1, 3, 60, 0.34, 0.02), scores(2, 5, 60, 0.30, 0.02)
    result, variance = compare_recipes(a, b, confidence=0.9), difference_variance(a, b)
    freedom, error = float(variance.degrees_of_freedom), math.sqrt(variance.total)
    low, high = student.interval(0.9, freedom, loc=a.mean() - b.mean(), scale=error)
    assert (result.low, result.high) == (pytest.approx(low), pytest.approx(high))
    assert result.p == pytest.approx(2 * student.sf(abs(result.delta) / error, freedom))
    assert (result.runs, result.tasks, result.p_method) == ((3, 5), 60, "t")
    assert result.degrees_of_freedom == pytest.approx(freedom)


@given(st.integers(0, 2**32), st.integers(2, 5), st.integers(2, 5))
@settings(deadline=None)
def test_p_and_interval_agree_and_training_only_widens(seed: int, ours: int, theirs: int) -> None:
    a, b = scores(seed, ours, 40, 0.32, 0.02), scores(seed + 1, theirs, 40, 0.30, 0.02)
    result = compare_recipes(a, b)
    assert result.low is not None
    assert result.high is not None
    assert (result.p < 0.05) == (result.low > 0 or result.high < 0)
    differences = a.mean(axis=0) - b.mean(axis=0)
    over_tasks = student.ppf(0.975, 39) * differences.std(ddof=1) / math.sqrt(40)
    assert result.high - result.low >= 2 * over_tasks * (1 - 1e-9)


def test_runs_far_apart_resolve_nothing_where_tasks_alone_would() -> None:
    # Every task of the one recipe gains 4 points on average, but its runs lie 10 points apart.
    levels = np.array([[0.30], [0.34], [0.48]])
    a = np.clip(scores(5, 3, 200) * 0 + levels + scores(3, 3, 200, 0.0), 0, 1)
    b = np.clip(0.33 + scores(4, 3, 200, 0.0), 0, 1)
    result = compare_recipes(a, b)
    differences = a.mean(axis=0) - b.mean(axis=0)
    assert abs(differences.mean()) > 5 * differences.std(ddof=1) / math.sqrt(200)
    assert result.verdict == "not resolved"
    assert result.shares is not None
    assert result.shares.training > 0.9


def test_signs_and_directions() -> None:
    a, b = scores(1, 3, 100, 0.4), scores(2, 3, 100, 0.3)
    better, worse = compare_recipes(a, b), compare_recipes(b, a)
    assert (better.verdict, worse.verdict) == ("better", "worse")
    assert (better.delta, better.low) == (pytest.approx(-worse.delta), pytest.approx(-worse.high))
    assert (better.won, better.lost) == (worse.lost, worse.won)
    lower = compare_recipes(a, b, lower_is_better=True)
    assert (lower.verdict, lower.won, lower.p) == ("worse", better.lost, better.p)


def test_pairs_remove_what_paired_runs_share() -> None:
    shared = np.random.default_rng(8).normal(0, 0.05, (6, 1))
    a, b = (np.clip(scores(seed, 6, 100, level) + shared, 0, 1) for seed, level in ((1, 0.32), (2, 0.3)))
    pairs, apart = compare_recipes(a, b, paired=True), compare_recipes(a, b)
    assert pairs.delta == pytest.approx(apart.delta)
    assert pairs.standard_error < apart.standard_error / 2
    assert (pairs.paired, pairs.runs) == (True, (6, 6))
    # Other pairs give another interval, so that pairs have to be declared.
    assert compare_recipes(a, b[::-1], paired=True).standard_error > 2 * pairs.standard_error


def test_shares_add_up_and_name_the_source() -> None:
    rng = np.random.default_rng(7)
    runs, tasks, n = 8, 400, 16
    chance = np.clip(0.4 + rng.normal(0, 0.1, (2, 1, tasks)) + rng.normal(0, 0.02, (2, runs, 1)), 0.05, 0.95)
    halves = rng.binomial(n // 2, np.broadcast_to(chance, (2, 2, runs, tasks))) / (n // 2)
    a, b = halves.mean(axis=0)
    sampling = sampling_variance(*(half.reshape(2 * runs, tasks) for half in halves))
    assert sampling == pytest.approx((chance * (1 - chance)).mean() / n, rel=0.05)
    shares = compare_recipes(a, b, sampling=sampling).shares
    unknown = compare_recipes(a, b).shares
    assert shares is not None
    assert unknown is not None
    assert shares.sampling is not None
    assert shares.tasks + shares.training + shares.training_tasks + shares.sampling == pytest.approx(1)
    assert unknown.tasks + unknown.training + unknown.training_tasks == pytest.approx(1)
    assert unknown.sampling is None
    assert unknown.training_tasks == pytest.approx(shares.training_tasks + shares.sampling)
    contributions = np.array([2 * 0.1**2 / tasks, 2 * 0.02**2 / runs, 2 * 0.24 / n / runs / tasks])
    expected = contributions / contributions.sum()
    assert [shares.tasks, shares.training, shares.sampling] == pytest.approx(list(expected), abs=0.15)
    assert shares.training_tasks < 0.05


def test_sampling_that_all_runs_share_is_left_out() -> None:
    rng = np.random.default_rng(2)
    first, second, view = rng.random((3, 50)), rng.random((3, 50)), rng.random(50)
    assert sampling_variance(first + view, second) == pytest.approx(sampling_variance(first, second))
    with pytest.raises(ValueError, match="shape"):
        sampling_variance(first, second[:, 1:])
    with pytest.raises(ValueError, match="finite"):
        sampling_variance(first, second * np.nan)


def test_all_equal_is_no_difference() -> None:
    result = compare_recipes(np.full((3, 50), 0.25), np.full((4, 50), 0.25))
    assert (result.delta, result.p, result.verdict, result.low) == (0.0, 1.0, "not resolved", None)
    assert (result.standard_error, result.degrees_of_freedom, result.shares) == (0.0, None, None)
    assert result.note == "too few tasks differ"


def test_tasks_that_all_differ_alike_are_tested_over_tasks() -> None:
    result = compare_recipes(np.full((3, 50), 0.1 + 0.2), np.full((3, 50), 0.1))
    assert (result.low, result.note, result.standard_error) == (None, "all tasks differ alike", 0.0)
    assert 0 < result.p < 0.001
    assert result.verdict == "better"


@pytest.mark.parametrize("differing", range(1, 10))
def test_fewer_than_10_differing_tasks_have_no_interval(differing: int) -> None:
    a, b = np.zeros((3, 100)), np.zeros((3, 100))
    a[:, :differing] = 1
    result = compare_recipes(a, b)
    assert (result.low, result.high, result.note) == (None, None, "too few tasks differ")
    assert result.p >= mcnemar(differing, 0)
    assert (result.p < 0.05) == (differing > 5)


def test_one_run_that_solves_a_few_tasks_resolves_nothing() -> None:
    a, b = np.zeros((3, 100)), np.zeros((3, 100))
    a[0, :9] = 1  # the sign-flip test over tasks alone has p = 0.004
    result = compare_recipes(a, b)
    assert result.p > 0.1
    assert (result.p_method, result.verdict) == ("t", "not resolved")


def test_holm_is_over_all_comparisons() -> None:
    pairs = [compare_recipes(scores(1, 3, 80, 0.3 + gain, 0.01), scores(2, 3, 80, 0.3, 0.01)) for gain in (0, 0.04, 1)]
    corrected = correct_recipes(pairs, [False, False, True])
    ps = sorted(c.p for c in pairs)
    assert min(c.p_holm for c in corrected) == pytest.approx(3 * ps[0])
    assert all(c.p_holm >= c.p for c in corrected)
    assert corrected[2].verdict == "worse"


@pytest.mark.parametrize("bad", [-0.1, 1.1, np.nan, np.inf])
def test_scores_that_are_no_shares_are_refused(bad: float) -> None:
    a = np.full((3, 20), 0.5)
    a[2, 3] = bad
    with pytest.raises(ValueError, match=r"finite|within \[0, 1\]"):
        compare_recipes(a, np.full((3, 20), 0.5))


def test_one_training_run_is_refused_in_words() -> None:
    with pytest.raises(ValueError, match="nothing is known about how training runs of this recipe differ"):
        compare_recipes(np.zeros((1, 50)), np.zeros((1, 50)))


def test_an_impossible_confidence_is_refused() -> None:
    with pytest.raises(ValueError, match="confidence"):
        compare_recipes(np.zeros((3, 50)), np.zeros((3, 50)), confidence=1.0)

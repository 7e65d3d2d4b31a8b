"""Confidence intervals equal those of scipy and published values."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, bootstrap, norm, t

from harness.stats.bootstrap import ROUNDED, resampled_means, to_units
from harness.stats.intervals import intervals, small_sample_level, wilson
from tests.support.data_samples import random_scores, scipy_interval, solved_and_unsolved


def test_check_value_of_94_of_400() -> None:
    result = intervals(solved_and_unsolved(94, 400))[0]
    assert (result.value, result.low, result.high, result.method) == (0.235, 0.195, 0.2775, "bca")
    assert scipy_interval(solved_and_unsolved(94, 400), 0, "percentile") == (0.1925, 0.2775)


@pytest.mark.parametrize(("tasks", "seed", "copies"), [(30, 1, 20), (119, 0, 5), (400, 7, 1)])
def test_bca_equals_scipy_bit_for_bit(tasks: int, seed: int, copies: int) -> None:
    rng = np.random.default_rng([tasks, seed])
    denominators = np.array([1, 8, 32, 384, 12 * 128] * copies)
    rows = np.stack([random_scores(rng, tasks, n) for n in denominators])
    results = intervals(rows, denominators, seed)
    assert [i.method for i in results].count("bca") >= 4 * copies
    for row, denominator, interval in zip(rows, denominators, results, strict=True):
        if interval.method == "bca":
            low, high = scipy_interval(np.rint(row * denominator), seed, "BCa")
            assert (interval.low, interval.high) == (low / denominator, high / denominator)


@pytest.mark.parametrize("tasks", [10, 29])
def test_small_samples_use_bca_at_the_level_of_students_t(tasks: int) -> None:
    level = small_sample_level(0.95, tasks)
    # Hesterberg: the normal quantile of the level is the t quantile, widened by what resampling n values loses.
    expected = t.ppf(0.975, tasks - 1) * math.sqrt(tasks / (tasks - 1))
    assert norm.ppf(1 - (1 - level) / 2) == pytest.approx(expected, rel=1e-9)
    row = np.random.default_rng(tasks).integers(1, 8, tasks) / 8
    result = intervals(row, 8, 3)[0]
    plain = bootstrap(
        (np.rint(row * 8),), np.mean, confidence_level=level, method="BCa", rng=np.random.default_rng(3)
    ).confidence_interval
    assert (result.low, result.high, result.method) == (plain.low / 8, plain.high / 8, "bca-small")
    narrower = scipy_interval(np.rint(row * 8), 3, "BCa")
    assert result.low < narrower[0] / 8 < narrower[1] / 8 < result.high


def test_from_30_tasks_on_the_level_is_the_nominal_one() -> None:
    row = np.random.default_rng(1).integers(1, 8, 30) / 8
    assert intervals(row, 8)[0].method == "bca"
    assert (intervals(row, 8)[0].low * 8, intervals(row, 8)[0].high * 8) == scipy_interval(np.rint(row * 8), 0, "BCa")


def test_few_tasks_above_zero_get_wilsons_interval() -> None:
    for tasks in (6, 12, 29, 30, 60):
        assert intervals(solved_and_unsolved(4, tasks))[0].method == "wilson"


def test_fractions_from_ties_are_rounded_to_12_decimals_and_equal_scipy() -> None:
    rng = np.random.default_rng(1)
    row = rng.choice([0, 1 / 3, 1 / 7, 1], 100)
    units, scale = to_units(row, 96)
    assert scale[0] == 1e12
    low, high = scipy_interval(units[0], 0, "BCa")
    assert (intervals(row, 96)[0].low, intervals(row, 96)[0].high) == (low / 1e12, high / 1e12)


def test_an_interval_does_not_depend_on_other_rows_or_blocks() -> None:
    rng = np.random.default_rng(2)
    rows = np.stack([random_scores(rng, 60, 8) for _ in range(600)])
    together = intervals(rows, 8, resamples=499)
    assert [intervals(rows[i], 8, resamples=499)[0] for i in (0, 511, 512, 599)] == [
        together[i] for i in (0, 511, 512, 599)
    ]


def test_resampled_means_equal_scipys_distribution_over_many_blocks() -> None:
    row = np.arange(3_000.0)
    _, means = next(resampled_means(row[None], 5, 1_500))
    expected = bootstrap((row,), np.mean, n_resamples=1_500, method="percentile", rng=np.random.default_rng(5))
    assert np.array_equal(means[0], expected.bootstrap_distribution)


@pytest.mark.parametrize(
    ("k", "n", "method"), [(4, 400, "wilson"), (5, 400, "bca"), (395, 400, "bca"), (396, 400, "wilson")]
)
def test_wilsons_interval_is_used_below_five_tasks(k: int, n: int, method: str) -> None:
    assert intervals(solved_and_unsolved(k, n))[0].method == method


def test_0_of_50_has_a_positive_upper_end() -> None:
    result = intervals(np.zeros(50))[0]
    assert (result.value, result.low, result.method) == (0.0, 0.0, "wilson")
    assert result.high == pytest.approx(0.071, abs=5e-4)


@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (3, 10), (10, 10), (94, 400)])
def test_wilson_equals_scipy(k: int, n: int) -> None:
    expected = binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert wilson(k / n, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


@given(
    st.lists(st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 1.0]), min_size=1, max_size=30),
    st.sampled_from([0.5, 0.9, 0.95, 0.999]),
    st.sampled_from([1, 9, 199]),
)
@settings(deadline=None, max_examples=150)
def test_intervals_are_always_defined_and_have_a_width(values: list[float], confidence: float, resamples: int) -> None:
    # Warnings are errors in this suite, so that a warning fails here too.
    result = intervals(values, 4, confidence=confidence, resamples=resamples)[0]
    assert 0 <= result.low < result.high <= 1
    assert result.value == pytest.approx(np.mean(values))


def test_equal_fractions_on_every_task_get_wilsons_interval() -> None:
    assert intervals(np.full(100, 0.5), 2)[0].method == "wilson"


@pytest.mark.parametrize(
    ("values", "options"),
    [
        ([], {}),
        ([0.5, math.nan], {}),
        ([0.5, 1.5], {}),
        ([0.5, -0.5], {"denominator": 2}),
        ([0.5], {"denominator": 0}),
        ([0.5], {"confidence": 1.0}),
        ([0.5], {"resamples": 0}),
    ],
)
def test_impossible_input_is_refused(values: list[float], options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"values must|must be within|denominator|cannot use"):
        intervals(values, **options)  # type: ignore[arg-type]


def test_rounded_values_sum_exactly_on_9007_tasks() -> None:
    tasks = int(2**53 // ROUNDED)
    assert tasks == 9_007
    units, scale = to_units(np.random.default_rng(0).uniform(0.9, 1, tasks))
    assert scale[0] == ROUNDED
    resamples = np.random.default_rng(3).integers(0, tasks, (50, tasks))
    ((_, means),) = resampled_means(units, 3, 50)
    assert [float(mean) for mean in means[0]] == [sum(int(units[0, i]) for i in row) / tasks for row in resamples]

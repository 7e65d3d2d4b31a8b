"""Paired comparisons: intervals, tests, verdicts, and the gate."""

from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, bootstrap, false_discovery_control

from harness.stats.gate import Gate, gate_verdict, margin_verdict
from harness.stats.intervals import small_sample_level
from harness.stats.paired_test import compare, holm, resolvable_difference, tasks_needed
from harness.stats.sign_tests import mcnemar, sign_tests
from tests.support.data_samples import random_scores, scipy_interval, solved_and_unsolved


def test_mcnemar_check_value() -> None:
    assert mcnemar(12, 4) == pytest.approx(0.076813, abs=5e-7)
    assert mcnemar(12, 4) == pytest.approx(binomtest(4, 16).pvalue, rel=1e-12)
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(np.int64(70), np.int64(30)) == pytest.approx(binomtest(30, 100).pvalue, rel=1e-12)
    comparison = compare(
        np.r_[solved_and_unsolved(12, 12), np.zeros(4), np.ones(84)], np.r_[np.zeros(12), np.ones(88)]
    )[0]
    assert (comparison.won, comparison.lost, comparison.p_method) == (12, 4, "mcnemar")
    assert comparison.p == mcnemar(12, 4)


def test_mcnemar_is_exact_and_fast_for_many_tasks() -> None:
    for won, lost in itertools.product(range(0, 60, 3), repeat=2):
        tail = sum(math.comb(won + lost, i) for i in range(min(won, lost) + 1))
        assert mcnemar(won, lost) == min(1.0, 2 * tail / 2 ** (won + lost))
    began = time.process_time()
    assert mcnemar(10_150, 9_850) == pytest.approx(binomtest(9_850, 20_000).pvalue, rel=1e-10)
    assert time.process_time() - began < 2  # 25 s if each binomial coefficient is computed from scratch


@given(st.lists(st.integers(-6, 6), min_size=1, max_size=8))
@settings(deadline=None)
def test_sign_flips_equal_enumeration(differences: list[int]) -> None:
    units = np.array([differences], dtype=float)
    reached = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True))) >= abs(sum(differences))
        for signs in itertools.product((-1, 1), repeat=len(differences))
    ]
    (p, method), *_ = sign_tests(units, np.array([6.0]), 0, 99)
    assert p == pytest.approx(np.mean(reached), abs=1e-15)
    assert method in {"mcnemar", "sign-flip exact"}


@pytest.mark.parametrize("denominator", [7, 45, 288])
@given(whole=st.lists(st.integers(-6, 6), min_size=1, max_size=8))
def test_equal_sums_stay_equal_after_rounding_to_12_decimals(denominator: int, whole: list[int]) -> None:
    reached = [
        abs(sum(s * d for s, d in zip(signs, whole, strict=True))) >= abs(sum(whole))
        for signs in itertools.product((-1, 1), repeat=len(whole))
    ]
    comparison = compare(np.maximum(whole, 0) / denominator, np.maximum(np.negative(whole), 0) / denominator, 384)[0]
    assert comparison.p == pytest.approx(np.mean(reached), abs=1e-15)


def test_equal_sums_stay_equal_after_rounding_among_random_flips() -> None:
    whole = np.array([1, 2, 3, -1, -2, 4] * 3)
    units, scale = np.stack([whole * 1.0, np.rint(whole / 45 * 1e12)]), np.array([45.0, 1e12])
    (exact, _), (rounded, method) = sign_tests(units, scale, 0, 9_999)
    assert (rounded, method) == (exact, "sign-flip")


def test_random_flips_approximate_the_exact_p_and_are_seeded() -> None:
    rng = np.random.default_rng(4)
    differences = rng.integers(-5, 9, 17)
    differences[differences == 0] = 1
    sums = np.zeros(1)
    for d in differences:
        sums = np.r_[sums + d, sums - d]
    exact = np.mean(np.abs(sums) >= abs(differences.sum()))
    units, scale = differences[None].astype(float), np.array([10.0])
    (p, method), *_ = sign_tests(units, scale, 0, 9_999)
    assert method == "sign-flip"
    assert p == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 9_999))
    assert sign_tests(units, scale, 0, 9_999)[0][0] == p
    assert sign_tests(units, scale, 1, 9_999)[0][0] != p
    assert (p * 10_000) == pytest.approx(round(p * 10_000))


def test_the_paired_interval_equals_scipys_percentile_interval() -> None:
    rng = np.random.default_rng(6)
    a, b = random_scores(rng, 400, 32), random_scores(rng, 400, 32)
    comparison = compare(a, b, 32, seed=3)[0]
    low, high = scipy_interval(np.rint((a - b) * 32), 3, "percentile")
    assert (comparison.low, comparison.high) == (low / 32, high / 32)
    assert comparison.delta == pytest.approx(a.mean() - b.mean())
    assert comparison.resolvable == pytest.approx(2.802 * np.std(a - b, ddof=1) / 20)


@pytest.mark.parametrize("tasks", [10, 29, 30])
def test_few_tasks_have_paired_intervals_at_the_level_of_students_t(tasks: int) -> None:
    differences = np.random.default_rng(tasks).integers(1, 8, tasks)
    comparison = compare(differences / 8, np.zeros(tasks), 8, seed=3)[0]
    level = small_sample_level(0.95, tasks) if tasks < 30 else 0.95
    values = (differences.astype(float),)
    generator = np.random.default_rng(3)
    expected = bootstrap(values, np.mean, confidence_level=level, method="percentile", rng=generator)
    assert (comparison.low, comparison.high) == tuple(end / 8 for end in expected.confidence_interval)


def test_paired_intervals_of_few_tasks_cover_the_difference() -> None:
    rng, replicates, tasks = np.random.default_rng(12), 1_000, 10
    differences = np.round(rng.normal(0.03, 0.12, (replicates, tasks)) * 32) / 32
    differences = differences[np.all(differences != 0, axis=1)]
    found = compare(np.maximum(differences, 0), np.maximum(-differences, 0), 32, resamples=999)
    covered = np.mean([c.low is not None and c.high is not None and c.low <= 0.03 <= c.high for c in found])
    assert len(found) > 300
    assert 0.92 < covered < 0.97  # 89 % at the nominal level


def test_too_few_differing_tasks_get_no_interval_but_a_verdict() -> None:
    comparison = compare(solved_and_unsolved(9, 100), np.zeros(100))[0]
    assert (comparison.low, comparison.high, comparison.note) == (None, None, "too few tasks differ")
    assert comparison.p == 2 / 2**9
    assert comparison.verdict == "better"
    assert compare(solved_and_unsolved(10, 100), np.zeros(100))[0].low is not None


def test_equal_rows_and_constant_differences_have_no_interval() -> None:
    same = compare(solved_and_unsolved(50, 100), solved_and_unsolved(50, 100))[0]
    assert (same.p, same.resolvable, same.verdict, same.differing) == (1.0, None, "not resolved", 0)
    shifted = compare(np.full(20, 0.75), np.full(20, 0.5), 4)[0]
    assert (shifted.low, shifted.note, shifted.resolvable) == (None, "all tasks differ alike", None)
    assert shifted.verdict == "better"


def test_verdicts_follow_the_corrected_p_and_the_direction() -> None:
    base = np.zeros((3, 100))
    ours = np.stack([solved_and_unsolved(20, 100), solved_and_unsolved(6, 100), np.zeros(100)])
    comparisons = compare(ours, base)
    assert comparisons[1].p == 2 / 2**6
    assert comparisons[1].p_holm == 4 / 2**6
    assert [c.verdict for c in comparisons] == ["better", "not resolved", "not resolved"]
    assert [c.verdict for c in compare(base, ours)] == ["worse", "not resolved", "not resolved"]
    reverse = compare(ours, base, lower_is_better=[True, True, True])[0]
    assert (reverse.verdict, reverse.won, reverse.lost, reverse.delta) == ("worse", 0, 20, 0.2)


@pytest.mark.parametrize("shared", [30, 40, 50])
def test_half_a_point_on_400_tasks_is_not_resolved(shared: int) -> None:
    a = np.r_[np.ones(shared), np.ones(51 - shared), np.zeros(53 - shared), np.zeros(400 - 104 + shared)]
    b = np.r_[np.ones(shared), np.zeros(51 - shared), np.ones(53 - shared), np.zeros(400 - 104 + shared)]
    comparison = compare(a, b)[0]
    assert (a.mean(), b.mean()) == (0.1275, 0.1325)
    assert comparison.verdict == "not resolved"


def test_swapping_the_two_sides_mirrors_the_test() -> None:
    rng = np.random.default_rng(8)
    a, b = random_scores(rng, 80, 8), random_scores(rng, 80, 8)
    one, other = compare(a, b, 8)[0], compare(b, a, 8)[0]
    assert (one.p, one.won, one.delta) == (other.p, other.lost, -other.delta)


def test_holm_check_values() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_the_raw_p_and_bonferroni(ps: list[float]) -> None:
    corrected = holm(ps)
    for p, q in zip(ps, corrected, strict=True):
        assert p <= q <= min(1, p * len(ps))
    # Holm's correction is at least that of Benjamini and Hochberg, which controls less.
    assert np.all(np.array(corrected) >= false_discovery_control(ps) - 1e-12)


def test_tasks_needed_is_the_inverse_of_resolvable_difference() -> None:
    assert tasks_needed(0.4, resolvable_difference(0.4, 250) or 0) == pytest.approx(250, abs=1)
    assert resolvable_difference(0.0, 400) is None
    with pytest.raises(ValueError, match="must be above 0"):
        tasks_needed(0.0, 0.1)


def test_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be paired"):
        compare(np.zeros(10), np.zeros(11))


@pytest.mark.parametrize(
    ("low", "high", "minimum", "verdict"),
    [(0.2, 0.3, 0.2, Gate.PASS), (0.1, 0.2, 0.2, Gate.INCONCLUSIVE), (0.1, 0.19, 0.2, Gate.FAIL)],
)
def test_the_gate_compares_both_ends_of_the_interval(low: float, high: float, minimum: float, verdict: Gate) -> None:
    assert gate_verdict(low, high, minimum) is verdict


def test_gate_exit_codes() -> None:
    assert (Gate.PASS.value, Gate.FAIL.value, Gate.INCONCLUSIVE.value) == (0, 1, 3)


def test_verdicts_on_a_margin_below_a_baseline() -> None:
    rng = np.random.default_rng(9)
    base = rng.binomial(32, 0.5, 400) / 32
    better, much_worse = np.minimum(base + 3 / 32, 1), np.maximum(base - rng.binomial(8, 0.5, 400) / 32, 0)
    assert margin_verdict(compare(better, base, 32)[0], 0.01) is Gate.PASS
    assert margin_verdict(compare(much_worse, base, 32)[0], 0.01) is Gate.FAIL
    assert margin_verdict(compare(much_worse, base, 32)[0], 0.01, lower_is_better=True) is Gate.PASS
    noisy = compare(rng.binomial(32, 0.5, 400) / 32, base, 32)[0]
    assert margin_verdict(noisy, 0.001) is Gate.INCONCLUSIVE
    with pytest.raises(ValueError, match="0 or more"):
        margin_verdict(noisy, -0.1)


def test_without_differing_tasks_a_margin_passes_only_with_enough_tasks() -> None:
    assert margin_verdict(compare(solved_and_unsolved(100, 400), solved_and_unsolved(100, 400))[0], 0.01) is Gate.PASS
    assert (
        margin_verdict(compare(solved_and_unsolved(10, 40), solved_and_unsolved(10, 40))[0], 0.01) is Gate.INCONCLUSIVE
    )

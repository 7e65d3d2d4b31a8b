"""Metrics of a test output, curves against enumeration, and averages over outputs and tasks."""

from __future__ import annotations

import itertools
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from harness.core.grid import Grid
from harness.voting.metrics import METRICS, OutputScore, average_outputs, selection_ratio, task_curves
from harness.voting.subset_curves import curve_points, pass_at_k, vote_at_m
from tests.support.runs.votes import score_output

TRUTH = Grid(2, 2, bytes((1, 2, 3, 4)))
NEAR = Grid(2, 2, bytes((1, 2, 3, 0)))
FAR = Grid(2, 2, bytes((0, 0, 0, 0)))
WIDE = Grid(1, 4, bytes((1, 2, 3, 4)))

PREDICTIONS = st.lists(st.none() | st.sampled_from([TRUTH, NEAR, FAR, WIDE]), min_size=1, max_size=12)


def brute_vote(exact: int, wrong: list[int], failures: int, m: int, k: int) -> float:
    """Return vote_k averaged over all subsets of m predictions."""
    items = ["exact"] * exact + [i for i, count in enumerate(wrong) for _ in range(count)] + [None] * failures
    total = 0.0
    for subset in itertools.combinations(items, m):
        votes = subset.count("exact")
        others = [subset.count(i) for i in range(len(wrong))]
        ahead, tied = sum(o > votes for o in others), sum(o == votes for o in others)
        total += min(max((k - ahead) / (tied + 1), 0), 1) if votes else 0
    return total / math.comb(len(items), m)


def plain_vote_at_m(exact: int, wrong: list[int], failures: int, m: int, ks: tuple[int, ...]) -> list[float]:
    """Return vote_k@m, computed with one array to which the wrong grids are added one by one; slow."""
    n = exact + sum(wrong) + failures
    total = np.zeros(len(ks))
    for j in range(1, min(exact, m) + 1):
        rivals, top = [size for size in wrong if size >= j], max(ks)
        table = np.zeros((top, len(rivals) + 1, m - j + 1))  # ahead of j votes, tied at j, drawn in all
        table[0, 0, 0] = 1.0
        for size in rivals:
            after = np.zeros_like(table)
            for t in range(min(size, m - j) + 1):
                source = table[:, :, : m - j + 1 - t] * binom.pmf(t, size, m / n)
                if t < j:
                    after[:, :, t:] += source
                elif t == j:
                    after[:, 1:, t:] += source[:, :-1]
                else:
                    after[1:, :, t:] += source[:-1]
            table = after
        filled = table @ binom.pmf(np.arange(m - j, -1, -1), n - exact - sum(rivals), m / n)
        ahead, tied = np.arange(top)[:, None], np.arange(len(rivals) + 1)
        shares = np.stack([np.clip((k - ahead) / (tied + 1), 0.0, 1.0) for k in ks])
        total += binom.pmf(j, exact, m / n) * (shares * filled).sum(axis=(1, 2))
    return list(total / binom.pmf(m, n, m / n))


def test_the_metrics_of_one_output() -> None:
    score = score_output([TRUTH, NEAR, NEAR, WIDE, None], TRUTH, n=8)
    assert dict(zip(METRICS, score.values(), strict=True)) == {
        "accuracy": 1 / 8,
        "correct_size": 3 / 8,
        "correct_pixels": pytest.approx((1 + 2 * 0.75) / 8),
        "pass_n": 1.0,
        "vote_1": 0.0,
        "vote_2": 0.5,
        "unanswered": 4 / 8,
    }
    assert (score.exact, score.wrong, score.failures, score.n) == (1, (2, 1), 4, 8)


def test_logprobs_break_ties() -> None:
    assert score_output([TRUTH, NEAR], TRUTH).vote_1 == 0.5
    assert score_output([TRUTH, NEAR], TRUTH, mean_logprobs=[-0.1, -0.2]).vote_1 == 1.0
    assert score_output([TRUTH, NEAR], TRUTH, mean_logprobs=[-0.3, -0.2]).vote_1 == 0.0
    assert score_output([TRUTH, NEAR], TRUTH, mean_logprobs=[-0.3, None]).vote_1 == 0.5


def test_a_task_without_predictions_scores_zero() -> None:
    assert score_output([], TRUTH, n=4).values() == (0, 0, 0, 0, 0, 0, 1)


@pytest.mark.parametrize(("predictions", "n"), [([TRUTH] * 3, 2), ([], None), ([], 0)])
def test_impossible_numbers_of_predictions_are_refused(predictions: list[Grid | None], n: int | None) -> None:
    with pytest.raises(ValueError, match="were requested"):
        score_output(predictions, TRUTH, n)


@given(PREDICTIONS, st.randoms(), st.integers(0, 3))
def test_metrics_stay_in_range_and_ignore_the_order(
    predictions: list[Grid | None], random: object, missing: int
) -> None:
    score = score_output(predictions, TRUTH, len(predictions) + missing)
    shuffled = list(predictions)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert score_output(shuffled, TRUTH, len(predictions) + missing) == score
    assert all(0 <= value <= 1 for value in score.values())
    assert score.exact + sum(score.wrong) + score.failures == score.n
    assert score.accuracy <= score.correct_pixels <= score.correct_size
    assert score.vote_1 <= score.vote_2 <= score.pass_n


@given(PREDICTIONS)
def test_a_further_failure_never_raises_a_metric(predictions: list[Grid | None]) -> None:
    before, after = score_output(predictions, TRUTH), score_output([*predictions, None], TRUTH)
    gained = dict(zip(METRICS, np.subtract(after.values(), before.values()), strict=True))
    assert all(gained[name] <= 0 for name in METRICS if name != "unanswered")
    assert gained["unanswered"] >= 0
    assert (after.vote_1, after.vote_2) == (before.vote_1, before.vote_2)


def test_pass_at_k_check_value() -> None:
    assert pass_at_k(8, [2], [4])[0, 0] == pytest.approx(0.785714, abs=5e-7)


def test_pass_at_k_equals_enumeration() -> None:
    for n in range(1, 8):
        for k in range(1, n + 1):
            subsets = list(itertools.combinations(range(n), k))
            expected = [sum(min(subset) < c for subset in subsets) / len(subsets) for c in range(n + 1)]
            np.testing.assert_allclose(pass_at_k(n, np.arange(n + 1), [k])[0], expected, rtol=0, atol=1e-15)


def test_pass_at_k_keeps_the_shape_and_huge_n() -> None:
    assert pass_at_k(10_000, np.zeros((3, 4), int), [1, 5_000]).shape == (2, 3, 4)
    assert pass_at_k(10_000, [1], [2_500])[0, 0] == pytest.approx(0.25, abs=1e-15)


def test_vote_at_m_check_values() -> None:
    curve = vote_at_m(2, [2, 1], 1, [3, 6])
    np.testing.assert_allclose(curve, [[0.41667, 0.5], [0.73333, 1.0]], atol=5e-6)


@given(st.integers(0, 4), st.lists(st.integers(1, 4), max_size=4), st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_vote_at_m_equals_enumeration(exact: int, wrong: list[int], failures: int) -> None:
    n = exact + sum(wrong) + failures
    if not 1 <= n <= 10:
        wrong, n = wrong[:1], max(1, exact + sum(wrong[:1]) + failures)
        failures = n - exact - sum(wrong)
    sizes = range(1, n + 1)
    expected = [[brute_vote(exact, wrong, failures, m, k) for m in sizes] for k in (1, 2, 3)]
    np.testing.assert_allclose(vote_at_m(exact, wrong, failures, sizes, (1, 2, 3)), expected, rtol=0, atol=1e-12)


@given(
    st.integers(1, 12),
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 8)), max_size=4),
    st.integers(0, 20),
    st.floats(0, 1),
)
@settings(max_examples=60, deadline=None)
def test_vote_at_m_equals_the_slow_algorithm_with_many_equal_counts(
    exact: int, groups: list[tuple[int, int]], failures: int, share: float
) -> None:
    wrong = [size for size, times in groups for _ in range(times)]
    n = exact + sum(wrong) + failures
    m = min(n - 1, 1 + int(share * n))
    if m >= 1:
        curve = vote_at_m(exact, wrong, failures, [m], (1, 2, 3))[:, 0]
        np.testing.assert_allclose(curve, plain_vote_at_m(exact, wrong, failures, m, (1, 2, 3)), rtol=0, atol=1e-11)


@pytest.mark.parametrize(("exact", "wrong"), [(24, [1] * 1000), (24, [2] * 500), (24, [10] * 100), (30, [30] * 33)])
def test_a_curve_over_1024_predictions_takes_under_half_a_second(exact: int, wrong: list[int]) -> None:
    n, began = 1024, time.process_time()
    curve = vote_at_m(exact, wrong, n - exact - sum(wrong), curve_points(n))
    assert time.process_time() - began < 0.5  # over a second if wrong grids are added one by one
    assert np.all((curve >= 0) & (curve <= 1))


def test_vote_at_1_is_accuracy_and_with_many_attempts_pass_at_m() -> None:
    exact, wrong, failures = 9, [30, 11, 9, 4, 2, 1, 1, 1], 60
    n = exact + sum(wrong) + failures
    sizes = curve_points(n)
    assert sizes == (1, 2, 4, 8, 16, 32, 64, 128)
    curve = vote_at_m(exact, wrong, failures, sizes, (1, 2, 99))
    assert curve[0, 0] == pytest.approx(exact / n, abs=1e-14)
    np.testing.assert_allclose(curve[2], pass_at_k(n, exact, sizes), rtol=0, atol=1e-12)
    assert np.all(np.diff(curve, axis=0) >= -1e-12)


def test_vote_at_m_stays_in_range_for_thousands_of_predictions() -> None:
    curve = vote_at_m(40, [30, 30, *[1] * 100], 3_000, [1, 7, 1_000, 3_199, 3_200])
    assert curve[0, 0] == pytest.approx(40 / 3_200, abs=1e-12)
    assert np.all((curve >= 0) & (curve <= 1))
    assert np.all(curve[:, -1] == 1)


def test_vote_at_m_accepts_numpy_integers() -> None:
    # No other test has these sizes, so that nothing is cached. C(131, 57) does not fit into 64 bits.
    curve = vote_at_m(np.int64(43), np.array([20, 7]), np.int64(61), [1, 57, 131])
    assert curve[0, 0] == pytest.approx(43 / 131, abs=1e-12)
    np.testing.assert_array_equal(vote_at_m(43, [20, 7], 61, [1, 57, 131]), curve)


@pytest.mark.parametrize("size", [0, 7])
def test_a_subset_must_fit(size: int) -> None:
    with pytest.raises(ValueError, match="cannot be drawn from 6"):
        vote_at_m(2, [2, 1], 1, [size])
    with pytest.raises(ValueError, match="cannot be drawn from 6"):
        pass_at_k(6, [2], [size])


def score(exact: int, vote: float) -> OutputScore:
    return OutputScore(4, exact, (), 4 - exact, exact / 4, exact / 4, vote, vote)


def test_averages_go_over_outputs_then_tasks() -> None:
    table = average_outputs({"b": [score(4, 1.0), score(0, 0.0), score(2, 0.5)], "a": [score(4, 1.0)]})
    assert table.ids == ("a", "b")
    np.testing.assert_allclose(table.values_of("accuracy"), [1.0, 0.5])
    np.testing.assert_allclose(table.values_of("pass_n"), [1.0, 2 / 3])
    assert table.per_output["accuracy"] == pytest.approx((4 + 0 + 2 + 4) / 16)
    assert table.strict == {"pass_n": 0.5, "vote_1": 0.5, "vote_2": 0.5}
    units = table.values_of("accuracy") * table.denominator
    assert np.array_equal(units, np.rint(units))


@pytest.mark.parametrize("outputs", [1, 2, 3, 4])
def test_the_denominator_makes_whole_numbers_of_all_values(outputs: int) -> None:
    table = average_outputs({"a": [score(1, 0.0)] + [score(0, 0.0)] * (outputs - 1)})
    units = table.values * table.denominator
    assert np.array_equal(units, np.rint(units))


def test_the_strict_value_multiplies_the_probabilities_of_tied_outputs() -> None:
    assert average_outputs({"a": [score(2, 0.5), score(2, 0.5)]}).strict["vote_1"] == 0.25


@pytest.mark.parametrize("outputs", [{}, {"a": []}])
def test_averages_need_every_declared_task(outputs: dict[str, list[OutputScore]]) -> None:
    with pytest.raises(ValueError, match="every declared task"):
        average_outputs(outputs)


def test_curves_average_the_outputs_of_each_task() -> None:
    first = score_output([TRUTH, TRUTH, NEAR, NEAR, WIDE, None], TRUTH)
    outputs = {"b": [first], "a": [first, score_output([], TRUTH, 6)]}
    curves = task_curves(outputs, [3, 6])
    np.testing.assert_allclose(curves["vote_1"], [[0.41667 / 2, 0.41667], [0.25, 0.5]], atol=5e-6)
    np.testing.assert_allclose(curves["vote_2"], [[0.73333 / 2, 0.73333], [0.5, 1.0]], atol=5e-6)
    np.testing.assert_allclose(curves["pass_n"], [[0.4, 0.8], [0.5, 1.0]])


def test_selection_ratio() -> None:
    assert selection_ratio(0.24, 0.32) == pytest.approx(0.75)
    assert selection_ratio(0.0, 0.0) is None

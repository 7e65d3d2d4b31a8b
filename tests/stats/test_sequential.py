"""Sequential verdicts: exact false alarms, consistency between looks, intervals, futility, order of tasks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from benchmarks import sequential as simulation
from harness.results.sequential_text import sequential_text
from harness.runs.schemas.sequential_schema import SequentialComparison, SequentialResult
from harness.sampling.options.sequential_options import sequential_design
from harness.stats.intervals import wilson
from harness.stats.sequential import Schedule, even_schedule, sequential_verdict, task_order, tasks_for_smaller
from harness.stats.sign_tests import sign_tests


@pytest.mark.parametrize("magnitudes", [[1.0] * 10, [0.1 * (i + 1) for i in range(10)], [0.0] * 4 + [0.5] * 6])
def test_false_alarms_over_all_sign_patterns_are_at_most_alpha(magnitudes: list[float]) -> None:
    schedule = Schedule((4, 7, 10), alpha=0.25)
    patterns = list(itertools.product((-1, 1), repeat=10))
    alarms = sum(
        sequential_verdict(np.array(magnitudes) * signs, schedule, 10, seed=i, flips=399).verdict != "not resolved"
        for i, signs in enumerate(patterns)
    )
    assert alarms / len(patterns) <= 0.25 + 3 * np.sqrt(0.25 * 0.75 / len(patterns))
    assert alarms > 0


@given(st.lists(st.integers(-8, 8), min_size=1, max_size=12), st.integers(0, 2**32))
@settings(deadline=None, max_examples=60)
def test_one_look_is_the_sign_flip_test(whole: list[int], seed: int) -> None:
    (p, _), *_ = sign_tests(np.array([whole], float), np.array([8.0]), 0, 9_999)
    if not 0.04 < p < 0.06:  # random patterns decide there
        result = sequential_verdict(np.array(whole) / 8, Schedule((len(whole),)), 8, seed=seed)
        assert (result.verdict in ("better", "worse")) == (p < 0.05)


@given(st.integers(0, 2**32), st.floats(-0.3, 0.3))
@settings(deadline=None, max_examples=40)
def test_looks_do_not_depend_on_what_comes_later(seed: int, shift: float) -> None:
    values = np.clip(np.random.default_rng(seed).normal(shift, 0.3, 60), -1, 1)
    schedule = even_schedule(60, looks=6)
    whole = sequential_verdict(values, schedule, seed=seed, flips=499)
    for index, tasks in enumerate(schedule.looks):
        part = sequential_verdict(values[:tasks], schedule, seed=seed, flips=499)
        assert part.looks == whole.looks[: index + 1]
        assert part.decided == (tasks >= whole.looks[-1].tasks)
    assert whole.verdict in ("better", "worse", "not resolved")


@given(st.integers(0, 2**32), st.floats(-0.4, 0.4))
@settings(deadline=None, max_examples=40)
def test_verdict_and_interval_agree_in_both_directions(seed: int, shift: float) -> None:
    values = np.clip(np.random.default_rng(seed).normal(shift, 0.3, 40), -1, 1)
    schedule = even_schedule(40, looks=5)
    ours, theirs = (sequential_verdict(sign * values, schedule, seed=3, flips=499) for sign in (1, -1))
    for one, other in zip(ours.looks, theirs.looks, strict=True):
        assert one.delta == -other.delta
        if one.low is None or one.high is None:
            assert not one.resolved
        else:
            assert one.low == -other.high
            assert one.resolved == (one.low > 0 or one.high < 0)
    turned = sequential_verdict(values, schedule, seed=3, flips=499, lower_is_better=True)
    assert (turned.verdict, turned.looks) == (theirs.verdict, ours.looks)


def test_scale_does_not_matter() -> None:
    counts = np.random.default_rng(1).integers(-7, 9, 80)
    thirds, halves = (
        sequential_verdict(counts / scale, even_schedule(80), scale, seed=1, flips=999) for scale in (16, 48)
    )
    rounded = sequential_verdict(counts / 48, even_schedule(80), seed=1, flips=999)
    assert [look.resolved for look in thirds.looks] == [look.resolved for look in halves.looks]
    assert [look.resolved for look in rounded.looks] == [look.resolved for look in halves.looks]


def test_a_large_difference_stops_early_and_none_does_not() -> None:
    rng = np.random.default_rng(5)
    far = sequential_verdict(np.clip(rng.normal(0.2, 0.2, 400), -1, 1), even_schedule(400))
    assert far.verdict == "better"
    assert far.looks[-1].tasks <= 80
    same = sequential_verdict(np.tile([0.2, -0.2], 200), even_schedule(400), 5)
    assert (same.verdict, len(same.looks)) == ("not resolved", 20)
    assert not sequential_verdict(np.tile([0.2, -0.2], 50), even_schedule(400), 5).decided


def test_equal_adapters_are_smaller_than_the_bound_or_not_resolved() -> None:
    values = np.random.default_rng(6).normal(0, 0.1, 400).clip(-1, 1)
    result = sequential_verdict(values, even_schedule(400), smaller_than=0.05, seed=2)
    assert result.verdict == "smaller than 0.05"
    last = result.looks[-1]
    assert last.low is not None
    assert last.high is not None
    assert -0.05 < last.low < last.high < 0.05
    assert sequential_verdict(np.zeros(400), even_schedule(400)).verdict == "not resolved"


def test_a_bound_takes_as_many_tasks_as_could_hide_tasks_that_lose_everything() -> None:
    schedule = even_schedule(400)
    result = sequential_verdict(np.tile([1 / 32, -1 / 32], 200), schedule, 32, smaller_than=0.03, seed=2)
    half = next(look.high - look.delta for look in result.looks[::-1] if look.high is not None)
    missed = [wilson(0.0, tasks)[1] * (1 - 1 / 32) for tasks in schedule.looks]
    assert result.verdict == "smaller than 0.03"
    assert half + missed[len(result.looks) - 1] < 0.03 <= missed[len(result.looks) - 2] + half
    assert result.looks[-1].tasks > 100


def test_rare_tasks_that_lose_everything_are_seldom_called_a_small_difference() -> None:
    rng = np.random.default_rng(1)
    said = 0
    for seed in range(60):
        kind = rng.random(400)
        small = rng.integers(1, 4, 400) * rng.choice([-1, 1], 400) / 32
        differences = np.where(kind < 0.035, -1.0, np.where(kind < 0.335, small, 0.0))
        result = sequential_verdict(differences, even_schedule(400), 32, smaller_than=0.03, seed=seed, flips=999)
        said += result.verdict == "smaller than 0.03"
    assert said <= 9  # 8 % on average, 24 % if the interval is not widened


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ("smaller than 0.03", "smaller than 3 points"),
        ("smaller than 0.01", "smaller than 1 point"),
        ("smaller than 0.005", "smaller than 0.5 points"),
        ("better", "better"),
    ],
)
def test_verdicts_are_read_in_points(verdict: str, words: str) -> None:
    comparison = SequentialComparison(verdict=verdict, tasks=20, delta=0.002, low=-0.01, high=0.014)
    result = SequentialResult(
        metric="accuracy", baseline="a", declared=40, reached=20, not_reached=[], comparisons={"b": comparison}
    )
    assert f"| {words} " in sequential_text(result)


@given(bound=st.floats(0.002, 0.5), alpha=st.sampled_from([0.05, 0.025, 0.01]))
def test_so_many_tasks_are_needed_to_say_that_a_difference_is_small(bound: float, alpha: float) -> None:
    least = tasks_for_smaller(bound, alpha)
    assert wilson(0.0, least, 1 - alpha)[1] <= bound * (1 + 1e-9)
    assert least == 1 or wilson(0.0, least - 1, 1 - alpha)[1] >= bound * (1 - 1e-9)


def test_too_few_tasks_to_say_so_get_a_warning() -> None:
    """The differences are as small as they can be, and one of two signs."""
    for tasks, verdict in ((120, "not resolved"), (200, "smaller than 0.03")):
        values = np.tile([1 / 32, -1 / 32], tasks // 2)
        assert sequential_verdict(values, even_schedule(tasks), 32, smaller_than=0.03).verdict == verdict
        warnings: list[str] = []
        sequential_design("accuracy", 3.0, tasks, 2, warnings)
        text = (
            f"--smaller-than 3: {tasks} tasks are too few to say so unless tasks are won and lost entirely; 125 are the"
        )
        assert [warning.startswith(text) for warning in warnings] == [True] * (tasks == 120)


def test_more_pairs_need_more_evidence() -> None:
    assert even_schedule(100, pairs=5).alpha == pytest.approx(0.01)
    values = np.r_[np.ones(7), np.zeros(13)]
    assert binomtest(0, 7).pvalue < 0.05
    assert sequential_verdict(values, even_schedule(20, looks=1)).verdict == "better"
    assert sequential_verdict(values, even_schedule(20, pairs=5, looks=1)).verdict == "not resolved"


@given(st.integers(1, 50), st.integers(1, 30))
def test_schedules_end_with_all_tasks_and_spend_alpha(tasks: int, looks: int) -> None:
    schedule = even_schedule(tasks, looks=looks)
    assert schedule.looks[-1] == tasks
    assert len(schedule.looks) == min(tasks, looks)
    spent = [schedule.spent(i) for i in range(len(schedule.looks))]
    assert spent == sorted(spent)
    assert spent[-1] == pytest.approx(0.05)


def test_the_order_of_tasks_is_random_and_fixed() -> None:
    names = [f"task{i:03}" for i in range(200)]
    order = task_order(names, 7)
    assert sorted(order) == names != order
    assert task_order(names[::-1], 7) == order != task_order(names, 8)


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="15 tasks are not one of the looks"):
        sequential_verdict(np.zeros(15), even_schedule(400))
    with pytest.raises(ValueError, match="above 0"):
        sequential_verdict(np.zeros(20), even_schedule(400), smaller_than=0.0)
    with pytest.raises(ValueError, match="within"):
        sequential_verdict(np.full(20, np.nan), even_schedule(400))
    with pytest.raises(ValueError, match="ascending"):
        Schedule((20, 20))
    with pytest.raises(ValueError, match="alpha"):
        Schedule((20,), alpha=0.0)
    with pytest.raises(ValueError, match="cannot schedule"):
        even_schedule(0)


@pytest.mark.slow
@pytest.mark.parametrize("metric", simulation.METRICS)
def test_the_simulation_keeps_its_promises(metric: str) -> None:
    replicates = 300
    cells = {(metric, d): simulation.measure(metric, d, replicates) for d in (0.0, 0.1)}
    assert simulation.missed(cells, replicates) == []
    assert cells[metric, 0.1]["resolved"] > 98
    assert cells[metric, 0.1]["used"] < 50
    assert cells[metric, 0.0]["used"] > 90

"""Rounds depend on the answers only: nothing is requested twice, and an interrupted run is completed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.random_stream import Stream
from harness.data.dataset import iterate_tasks
from harness.data.spec import open_dataset
from harness.runs.schema import RunConfig
from harness.sampling.options import ConfigDraft, RunOptions
from harness.sampling.plan import Plan
from harness.sampling.round_scheduler import RoundScheduler
from harness.voting.early_stopping import Schedule, StopRule, run_schedule

FAILURE = -1
Answers = Callable[[int], int]


def prepared(n: int, rule: str, models: int = 2) -> tuple[Plan, Schedule]:
    """The plan and rounds of a run over five test outputs."""
    options = RunOptions(
        servers=("http://later",), models=tuple(f"m{i}" for i in range(models)), dataset="toy/copy#n=5", n=n,
        out=Path("unused"), prompt="compact-v0", encoder="MinimalGridEncoder()", stop=rule,
    )  # fmt: skip
    dataset = open_dataset(options.dataset)
    tasks = list(iterate_tasks(dataset))
    config: RunConfig = ConfigDraft(options, dataset, tasks).complete({})[0]
    schedule = run_schedule(config)
    assert schedule is not None
    return Plan(config, tasks), schedule


def answers_of(seed: int) -> Answers:
    """Every output has a favourite and a second; by output, how clear they are differs."""

    def answer(number: int) -> int:
        output = number // 32
        clear = 40 + Stream("clear", seed, output).below(60)
        roll = Stream("answer", seed, number).below(100)
        if roll >= clear:
            return FAILURE if roll % 7 == 0 else 10 + roll
        return 0 if roll < clear * 0.65 else 1

    return answer


def in_turn(plan: Plan, schedule: Schedule, answer: Answers) -> set[int]:
    """What is due by definition, output by output."""
    due: set[int] = set()
    for start in range(0, len(plan), schedule.n):
        drawn, target = 0, schedule.first_round
        while drawn < target:
            drawn = target
            labels = Counter(answer(start + k) for k in range(drawn))
            target = schedule.required_samples([c for label, c in labels.items() if label != FAILURE], labels[FAILURE])
        due |= set(range(start, start + drawn))
    return due


class Session:
    """An engine in small: pulls blocks, has some in flight, and answers them in any order."""

    def __init__(self, plan: Plan, schedule: Schedule, answer: Answers, before: set[int]) -> None:
        self.plan, self.n, self.answer = plan, schedule.n, answer
        self.done = bytearray(len(plan))
        for number in before:
            self.done[number] = 1
        self.rounds = RoundScheduler(plan, schedule, self.done)
        self.spared = sum(map(self._next, self.rounds.completed_rounds()))
        self.asked: list[int] = []

    def _next(self, number: int) -> int:
        start = number // self.n * self.n
        labels = Counter(self.answer(start + k) for k in range(self.n) if self.done[start + k])
        return self.rounds.decide_next_round(
            number, [c for label, c in labels.items() if label != FAILURE], labels[FAILURE]
        )

    def run(self, stream: Stream, at_once: int, size: int, limit: int | None = None) -> None:
        """Until all is done, or killed after ``limit`` answers."""
        blocks = self.rounds.blocks(at_once, size)
        flying: list[int] = []
        answered = 0
        dry = ended = False
        while flying or not ended:
            if not ended and not dry and (not flying or stream.below(3) > 0) and len(flying) < 40:
                block = next(blocks, None)
                ended, dry = block is None, block is not None and not block
                assert flying or not dry, "it waits for answers though none is to come"
                assert len({number // self.plan.per_model for number in block or ()}) <= 1
                assert len(block or ()) <= size
                flying += block or ()
                self.asked += block or ()
                continue
            number = flying.pop(stream.below(len(flying)))
            self.done[number] = 1
            dry = False
            if self.rounds.record_answer(number):
                self.spared += self._next(number)
            answered += 1
            if answered == limit:
                return


rules = st.sampled_from(["decided", "risk=0.05", "risk=0.3"])


@given(st.integers(0, 10**6), rules, st.sampled_from([1, 2]), st.sampled_from([1, 5, 16]))
def test_each_required_sample_is_requested_once_in_any_order_of_answers(
    seed: int, rule: str, at_once: int, size: int
) -> None:
    plan, schedule = prepared(32, rule)
    answer = answers_of(seed)
    session = Session(plan, schedule, answer, set())
    session.run(Stream("order", seed), at_once, size)
    due = in_turn(plan, schedule, answer)
    assert sorted(session.asked) == sorted(due)
    assert session.spared == len(plan) - len(due)


@given(st.integers(0, 10**6), rules, st.integers(1, 300))
def test_a_killed_session_is_completed_with_the_missing_samples(seed: int, rule: str, limit: int) -> None:
    plan, schedule = prepared(32, rule)
    answer = answers_of(seed)
    killed = Session(plan, schedule, answer, set())
    killed.run(Stream("order", seed), 1, 3, limit)
    before = {number for number, done in enumerate(killed.done) if done}
    resumed = Session(plan, schedule, answer, before)
    resumed.run(Stream("again", seed), 2, 4)
    due = in_turn(plan, schedule, answer)
    assert sorted(resumed.asked) == sorted(due - before)
    assert resumed.spared == len(plan) - len(due)


@pytest.mark.parametrize("rule", ["decided", "risk=0.05"])
def test_some_outputs_stop_early_and_some_do_not(rule: str) -> None:
    """The answers above do meet both cases."""
    plan, schedule = prepared(32, rule)
    drawn: set[int] = set()
    for seed in range(20):
        drawn |= set(Counter(number // 32 for number in in_turn(plan, schedule, answers_of(seed))).values())
    assert len(drawn) > 1
    assert max(drawn) == 32


def test_a_finished_run_requests_nothing() -> None:
    plan, schedule = prepared(32, "risk=0.3")
    answer = answers_of(1)
    session = Session(plan, schedule, answer, in_turn(plan, schedule, answer))
    session.run(Stream("order"), 1, 16)
    assert session.asked == []


def test_first_rounds_of_a_group_precede_its_second_rounds() -> None:
    plan, schedule = prepared(32, "risk=0.05", models=3)
    session = Session(plan, schedule, lambda number: number % 32, set())  # All different: every round is drawn.
    session.run(Stream("order"), 2, 4)
    places = [(number // plan.per_model // 2, number % 32 >= schedule.first_round) for number in session.asked]
    last_first = max(i for i, place in enumerate(places) if place == (0, False))
    assert min(i for i, place in enumerate(places) if place == (0, True)) > last_first


def test_gaps_in_earlier_rounds_are_filled_before_the_rule_is_applied() -> None:
    """As after --retry-errors: later rounds are there, an earlier prediction is not."""
    plan, schedule = prepared(32, "risk=0.05")
    before = set(range(24)) - {3}
    session = Session(plan, schedule, lambda number: 0 if number % 3 else 1, before)
    session.run(Stream("order"), 1, 4)
    assert sorted(k for k in session.asked if k < 32)[0] == 3
    assert all(k == 3 or k >= 24 for k in session.asked if k < 32)


def test_a_schedule_without_decisions_releases_the_whole_plan() -> None:
    plan, schedule = prepared(4, "decided")
    assert schedule.round_ends == ()
    session = Session(plan, Schedule(StopRule(), 4, (), 8), answers_of(0), set())
    session.run(Stream("order"), 1, 4)
    assert sorted(session.asked) == list(range(len(plan)))
    assert session.spared == 0

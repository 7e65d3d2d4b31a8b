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
from harness.runs.schemas.manifest_schema import RunConfig
from harness.sampling.options.config_draft import ConfigDraft
from harness.sampling.options.run_options import RunOptions
from harness.sampling.plan import Plan
from harness.sampling.schedulers.round_scheduler import RoundScheduler
from harness.voting.early_stopping import Schedule, StopRule, run_schedule

FAILURE = -1
Answers = Callable[[int], int]


def plan_and_schedule(n: int, rule: str, models: int = 2) -> tuple[Plan, Schedule]:
    """Return the plan and the schedule of a run over five test outputs."""
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
    """Return answers with a first and a second choice per test output, whose shares differ between outputs."""

    def answer(number: int) -> int:
        output = number // 32
        clear = 40 + Stream("clear", seed, output).below(60)
        roll = Stream("answer", seed, number).below(100)
        if roll >= clear:
            return FAILURE if roll % 7 == 0 else 10 + roll
        return 0 if roll < clear * 0.65 else 1

    return answer


def required_samples(plan: Plan, schedule: Schedule, answer: Answers) -> set[int]:
    """Return the samples that the stopping rule requires, computed output by output."""
    required: set[int] = set()
    for start in range(0, len(plan), schedule.n):
        drawn, target = 0, schedule.first_round
        while drawn < target:
            drawn = target
            labels = Counter(answer(start + k) for k in range(drawn))
            target = schedule.required_samples([c for label, c in labels.items() if label != FAILURE], labels[FAILURE])
        required |= set(range(start, start + drawn))
    return required


class Session:
    """A minimal engine: takes blocks, keeps some samples in flight, and answers them in random order."""

    def __init__(self, plan: Plan, schedule: Schedule, answer: Answers, before: set[int]) -> None:
        self.plan, self.n, self.answer = plan, schedule.n, answer
        self.done = bytearray(len(plan))
        for number in before:
            self.done[number] = 1
        self.rounds = RoundScheduler(plan, schedule, self.done)
        self.skipped = sum(map(self._decide, self.rounds.completed_rounds()))
        self.requested: list[int] = []

    def _decide(self, number: int) -> int:
        start = number // self.n * self.n
        labels = Counter(self.answer(start + k) for k in range(self.n) if self.done[start + k])
        return self.rounds.decide_next_round(
            number, [c for label, c in labels.items() if label != FAILURE], labels[FAILURE]
        )

    def run(self, stream: Stream, models_at_once: int, size: int, limit: int | None = None) -> None:
        """Answer everything, or stop after ``limit`` answers like a killed session."""
        blocks = self.rounds.blocks(models_at_once, size)
        in_flight: list[int] = []
        answered = 0
        awaits_answers = ended = False
        while in_flight or not ended:
            if not ended and not awaits_answers and (not in_flight or stream.below(3) > 0) and len(in_flight) < 40:
                block = next(blocks, None)
                ended, awaits_answers = block is None, block is not None and not block
                assert in_flight or not awaits_answers, "it waits for answers though none is in flight"
                assert len({number // self.plan.per_model for number in block or ()}) <= 1
                assert len(block or ()) <= size
                in_flight += block or ()
                self.requested += block or ()
                continue
            number = in_flight.pop(stream.below(len(in_flight)))
            self.done[number] = 1
            awaits_answers = False
            if self.rounds.record_answer(number):
                self.skipped += self._decide(number)
            answered += 1
            if answered == limit:
                return


rules = st.sampled_from(["decided", "risk=0.05", "risk=0.3"])


@given(st.integers(0, 10**6), rules, st.sampled_from([1, 2]), st.sampled_from([1, 5, 16]))
def test_each_required_sample_is_requested_once_in_any_order_of_answers(
    seed: int, rule: str, models_at_once: int, size: int
) -> None:
    plan, schedule = plan_and_schedule(32, rule)
    answer = answers_of(seed)
    session = Session(plan, schedule, answer, set())
    session.run(Stream("order", seed), models_at_once, size)
    required = required_samples(plan, schedule, answer)
    assert sorted(session.requested) == sorted(required)
    assert session.skipped == len(plan) - len(required)


@given(st.integers(0, 10**6), rules, st.integers(1, 300))
def test_a_killed_session_is_completed_with_the_missing_samples(seed: int, rule: str, limit: int) -> None:
    plan, schedule = plan_and_schedule(32, rule)
    answer = answers_of(seed)
    killed = Session(plan, schedule, answer, set())
    killed.run(Stream("order", seed), 1, 3, limit)
    before = {number for number, done in enumerate(killed.done) if done}
    resumed = Session(plan, schedule, answer, before)
    resumed.run(Stream("again", seed), 2, 4)
    required = required_samples(plan, schedule, answer)
    assert sorted(resumed.requested) == sorted(required - before)
    assert resumed.skipped == len(plan) - len(required)


@pytest.mark.parametrize("rule", ["decided", "risk=0.05"])
def test_some_outputs_stop_early_and_some_do_not(rule: str) -> None:
    """The answers used here lead to both cases."""
    plan, schedule = plan_and_schedule(32, rule)
    drawn: set[int] = set()
    for seed in range(20):
        drawn |= set(Counter(number // 32 for number in required_samples(plan, schedule, answers_of(seed))).values())
    assert len(drawn) > 1
    assert max(drawn) == 32


def test_a_finished_run_requests_nothing() -> None:
    plan, schedule = plan_and_schedule(32, "risk=0.3")
    answer = answers_of(1)
    session = Session(plan, schedule, answer, required_samples(plan, schedule, answer))
    session.run(Stream("order"), 1, 16)
    assert session.requested == []


def test_first_rounds_of_a_group_precede_its_second_rounds() -> None:
    plan, schedule = plan_and_schedule(32, "risk=0.05", models=3)
    session = Session(plan, schedule, lambda number: number % 32, set())  # All different: every round is drawn.
    session.run(Stream("order"), 2, 4)
    places = [(number // plan.per_model // 2, number % 32 >= schedule.first_round) for number in session.requested]
    last_first = max(i for i, place in enumerate(places) if place == (0, False))
    assert min(i for i, place in enumerate(places) if place == (0, True)) > last_first


def test_gaps_in_earlier_rounds_are_filled_before_the_rule_is_applied() -> None:
    """As with --retry-errors: predictions of later rounds exist, one of an earlier round does not."""
    plan, schedule = plan_and_schedule(32, "risk=0.05")
    before = set(range(24)) - {3}
    session = Session(plan, schedule, lambda number: 0 if number % 3 else 1, before)
    session.run(Stream("order"), 1, 4)
    assert sorted(k for k in session.requested if k < 32)[0] == 3
    assert all(k == 3 or k >= 24 for k in session.requested if k < 32)


def test_a_schedule_without_decisions_releases_the_whole_plan() -> None:
    plan, schedule = plan_and_schedule(4, "decided")
    assert schedule.round_ends == ()
    session = Session(plan, Schedule(StopRule(), 4, (), 8), answers_of(0), set())
    session.run(Stream("order"), 1, 4)
    assert sorted(session.requested) == list(range(len(plan)))
    assert session.skipped == 0

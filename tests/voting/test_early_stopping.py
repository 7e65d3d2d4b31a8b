"""Stopping rules: decided against every continuation, the risk against its urn written out, the rounds."""

from __future__ import annotations

import itertools
import math
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.core.errors import ConfigError
from harness.core.grid import Grid
from harness.core.random_stream import Stream
from harness.voting.early_stopping import CONCENTRATION, DISCOUNT, StopRule, change_bound, is_decided, plan_rounds
from harness.voting.ranking import Vote, rank_votes, split_ties
from tests.support.votes import vote_k

FAILURE = -1
Logprob = float | None


def grid(name: int) -> Grid:
    return Grid(1, 2, bytes(divmod(name, 10)))


def places(votes: list[Vote]) -> list[frozenset[Grid]]:
    """The tie sets that hold the first two places: what vote_1 and vote_2 of any truth depend on."""
    shown: list[frozenset[Grid]] = []
    for group_set in split_ties(rank_votes(votes)):
        if sum(map(len, shown)) < 2:
            shown.append(frozenset(group.grid for group in group_set))
    return shown


def continuations(seen: int, left: int, logprobs: tuple[Logprob, ...]) -> Iterator[list[Vote]]:
    """Everything that ``left`` draws can add to ``seen`` distinct grids, failures included."""
    answers = [Vote(grid(name), logprob) for name in range(seen + left) for logprob in logprobs]
    for drawn in range(left + 1):
        yield from map(list, itertools.combinations_with_replacement(answers, drawn))


known = st.sampled_from([-0.1, -0.5, -2.0])
small_votes = st.lists(st.builds(Vote, st.integers(0, 3).map(grid), known), max_size=8)


def relabelled(votes: list[Vote]) -> list[Vote]:
    """The same votes on grids 0, 1, 2 …, so that new grids have names of their own."""
    names = {old: grid(place) for place, old in enumerate(dict.fromkeys(vote.grid for vote in votes))}
    return [Vote(names[vote.grid], vote.mean_logprob) for vote in votes]


@given(small_votes.map(relabelled), st.integers(1, 2))
def test_decided_means_that_no_continuation_changes_the_first_two_places(votes: list[Vote], left: int) -> None:
    counts = Counter(vote.grid for vote in votes)
    # Answers may come without log-probabilities, with the best possible ones, or with very bad ones.
    same = all(places(votes + more) == places(votes) for more in continuations(len(counts), left, (None, 0.0, -9.0)))
    assert is_decided(list(counts.values()), left) == same


@given(st.tuples(*[st.integers(0, 9)] * 4).map(list), st.integers(0, 3))
def test_decided_is_right_on_uneven_counts_too(counts: list[int], left: int) -> None:
    votes = relabelled([Vote(grid(name), -0.5) for name, count in enumerate(counts) for _ in range(count)])
    seen = len({vote.grid for vote in votes})
    same = all(places(votes + more) == places(votes) for more in continuations(seen, left, (None, 0.0)))
    assert is_decided(counts, left) == same


@given(st.tuples(*[st.integers(0, 4)] * 3).map(list), st.integers(1, 3))
def test_sure_log_probabilities_would_stop_at_most_one_draw_earlier(counts: list[int], left: int) -> None:
    """Where the rule does not hold with one draw less to come, a lead is lost even among known log-probabilities."""
    if is_decided(counts, left - 1):
        return
    votes = relabelled([Vote(grid(name), -0.5) for name, count in enumerate(counts) for _ in range(count)])
    seen = len({vote.grid for vote in votes})
    assert len({tuple(places(votes + more)) for more in continuations(seen, left, (-0.1, -9.0))}) > 1


@given(st.lists(st.tuples(st.integers(-1, 4), st.none() | known), min_size=7, max_size=40), st.integers(0, 9))
def test_a_decided_output_scores_as_the_full_run_does(draws: list[tuple[int, Logprob]], truth: int) -> None:
    votes = [None if name == FAILURE else Vote(grid(name), logprob) for name, logprob in draws]
    for drawn in range(len(votes)):
        early = [vote for vote in votes[:drawn] if vote is not None]
        if is_decided(list(Counter(vote.grid for vote in early).values()), len(votes) - drawn):
            full = [vote for vote in votes if vote is not None]
            for k in (1, 2):
                assert vote_k(early, grid(truth), k) == vote_k(full, grid(truth), k)


def test_the_least_lead_that_is_decided() -> None:
    assert is_decided([16, 8], 7)
    assert not is_decided([15, 8], 7)
    assert not is_decided([16, 7], 7)
    assert not is_decided([16, 8, 1], 7)
    assert not is_decided([31], 1)
    assert not is_decided([], 1)
    assert is_decided([], 0)


def urn(counts: tuple[int, ...], failures: int, left: int) -> dict[tuple[tuple[int, ...], int], float]:
    """The chances of all final counts (new grids behind the old), drawn one by one."""
    states = {(counts, failures): 1.0}
    for _ in range(left):
        after: dict[tuple[tuple[int, ...], int], float] = {}
        for (own, failed), chance in states.items():
            mass = sum(own) + failed + CONCENTRATION
            ways = [((*own[:i], c + 1, *own[i + 1 :]), failed, c - DISCOUNT) for i, c in enumerate(own)]
            ways += [((*own, 1), failed, CONCENTRATION + DISCOUNT * len(own)), (own, failed + 1, failed)]
            for state, lost, weight in ways:
                if weight:
                    after[state, lost] = after.get((state, lost), 0.0) + chance * weight / mass
        states = after
    return states


urns = st.tuples(
    st.lists(st.integers(1, 5), max_size=4).map(lambda c: tuple(sorted(c, reverse=True))),
    st.integers(0, 2),
    st.integers(1, 5),
)


@given(urns)
def test_the_risk_is_the_sum_of_its_events_under_the_urn(state: tuple[tuple[int, ...], int, int]) -> None:
    counts, failures, left = state
    if len(counts) < 2:
        counts = (*counts, 7)[: len(counts) + 1] if counts else (7,)
    counts = tuple(sorted(counts, reverse=True))
    events = changed = 0.0
    for (own, _), chance in urn(counts, failures, left).items():
        first, second = own[0], own[1] if len(counts) > 1 else 0
        new = own[len(counts) :]
        reached = (second >= first) + sum(c >= second for c in own[2 : len(counts)]) + sum(c >= second for c in new)
        events += chance * reached
        changed += chance * (reached > 0)
    bound = change_bound(counts, failures, left)
    assert bound == pytest.approx(min(events, 1.0), abs=2e-9)
    assert bound >= changed - 2e-9


def plain_bound(counts: tuple[int, ...], failures: int, left: int) -> float:
    """change_bound with every sum written out over all pairs of draws."""
    first, second, *others = (*sorted(counts, reverse=True), 0, 0)
    mass = sum(counts) + failures + CONCENTRATION

    def log_ways(weight: float) -> np.ndarray:
        x = np.arange(1, left + 1)
        with np.errstate(divide="ignore"):
            return np.concatenate(([0.0], np.cumsum(np.log((weight + x - 1) / x))))

    def reaching(lead: int, own: float, log_rival: np.ndarray, rest: float) -> float:
        x, y = np.ogrid[: left + 1, : left + 1]
        counted = (y >= lead + x) & (x + y <= left)
        logs = log_ways(own)[x] + log_rival[y] + log_ways(rest)[np.maximum(left - x - y, 0)]
        return float(np.exp(logs[counted] - log_ways(mass)[left]).sum())

    def overtaking(leader: int, rival: int) -> float:
        own, other = max(leader - DISCOUNT, 0.0), max(rival - DISCOUNT, 0.0)
        return reaching(leader - rival, own, log_ways(other), mass - own - other)

    total = overtaking(first, second) + sum(overtaking(second, count) for count in others if count)
    own, sizes = max(second - DISCOUNT, 0.0), np.arange(2, left + 1)
    grown = np.concatenate(([0.0], np.cumsum(np.log((sizes - 1 - DISCOUNT) / sizes))))
    unseen = CONCENTRATION + DISCOUNT * np.count_nonzero(counts)
    log_new = np.concatenate(([-math.inf], math.log(unseen) + grown))[: left + 1]
    return round(min(total + reaching(second, own, log_new, mass - own + DISCOUNT), 1.0), 9)


@given(
    st.lists(st.integers(0, 80), max_size=8).map(tuple), st.integers(0, 40), st.sampled_from([1, 2, 3, 7, 16, 50, 120])
)
@settings(deadline=None)
def test_the_risk_equals_its_sums_written_out(counts: tuple[int, ...], failures: int, left: int) -> None:
    expected = plain_bound(counts, failures, left)
    assert change_bound(counts, failures, left) == pytest.approx(expected, rel=0, abs=1.1e-9)  # both are rounded


def test_a_look_at_a_long_run_does_not_hold_up_the_event_loop() -> None:
    began = time.process_time()
    for second in range(100, 200, 10):  # no two alike, which would be remembered
        change_bound([260, second, 20, 5, 3, 1], 11, 501)
    assert (time.process_time() - began) / 10 < 0.01  # 27 ms where all pairs of draws were listed


@given(urns)
def test_the_risk_is_a_chance_that_is_zero_where_all_is_decided(state: tuple[tuple[int, ...], int, int]) -> None:
    counts, failures, left = state
    bound = change_bound(counts, failures, left)
    assert 0 <= bound <= 1
    assert bound == change_bound(counts[::-1], failures, left)
    if is_decided(counts, left):
        assert bound == 0


@pytest.mark.parametrize("n", [8, 32, 128, 1024])
def test_the_risk_falls_as_the_lead_grows_however_long_the_run(n: int) -> None:
    thirds = range(n // 8, -1, -max(1, n // 32))
    risks = [change_bound([n // 4, n // 8, third], n // 8 - third, n // 2) for third in thirds]
    assert all(0 <= risk <= 1 for risk in risks)
    assert risks == sorted(risks, reverse=True)
    assert risks[0] > 0.4 > risks[-1] or n == 8


def test_the_promise_holds_where_draws_come_from_the_urn() -> None:
    """Outputs left at a risk below 10 % whose places change later: fewer than a tenth."""
    rule, changed, left = StopRule(0.1), 0, 0
    plan = plan_rounds(rule, 32, 400, 8)
    for output in range(400):
        draws = from_the_urn(Stream("urn", output), plan.n)
        for look in plan.round_ends:
            early = [Vote(grid(name), -0.5) for name in draws[:look] if name != FAILURE]
            if plan.required_samples(list(Counter(v.grid for v in early).values()), look - len(early)) == look:
                left += 1
                changed += places([Vote(grid(name), -0.5) for name in draws if name != FAILURE]) != places(early)
                break
    assert left > 100
    assert changed < 0.1 * left


def from_the_urn(stream: Stream, n: int) -> list[int]:
    """Names of grids, drawn one by one; a twentieth of the draws fail."""
    counts: list[int] = []
    draws = []
    for _ in range(n):
        if stream.below(20) == 0:
            draws.append(FAILURE)
            continue
        at = stream.uniform() * (sum(counts) + CONCENTRATION)
        name = bisect_right(list(itertools.accumulate(count - DISCOUNT for count in counts)), at)
        counts += [0] * (name == len(counts))
        counts[name] += 1
        draws.append(name)
    return draws


@given(st.integers(1, 300), st.integers(1, 2000), st.sampled_from([1, 8, 32]), st.sampled_from([0.0, 0.01, 0.3]))
def test_rounds_are_ascending_and_end_before_the_last_draw(n: int, outputs: int, cycle: int, risk: float) -> None:
    plan = plan_rounds(StopRule(risk), n, outputs, cycle)
    assert list(plan.round_ends) == sorted(set(plan.round_ends))
    assert all(0 < look < n for look in plan.round_ends)
    assert plan.first_round == (plan.round_ends[0] if plan.round_ends else n)
    # All predictions different: nothing is ever decided, and every round is drawn.
    assert [plan.required_samples([1] * drawn, 0) for drawn in (0, *plan.round_ends)] == [*plan.round_ends, n]
    if not risk and n >= 7:
        # The last round can still be spared, where the lead allows it.
        left = n - plan.round_ends[-1]
        assert plan.required_samples([plan.round_ends[-1] - left - 1, left + 1], 0) == plan.round_ends[-1]


def test_the_rounds_of_a_usual_run() -> None:
    assert plan_rounds(StopRule(), 32, 400, 8).round_ends == (24, 25, 26, 27, 28, 29, 30, 31)
    assert plan_rounds(StopRule(), 32, 60, 8).round_ends == (24, 26, 28, 30)
    assert plan_rounds(StopRule(0.01), 32, 60, 8).round_ends == (16, 20, 24, 28)
    assert plan_rounds(StopRule(), 10, 60, 8).round_ends == (8, 9)  # At 8 nothing can be decided yet.
    assert plan_rounds(StopRule(), 6, 60, 8).round_ends == ()
    assert plan_rounds(StopRule(0.01), 32, 400, 8).is_balanced
    assert not plan_rounds(StopRule(0.01), 12, 400, 8).is_balanced
    assert plan_rounds(StopRule(0.01), 12, 400, 1).is_balanced


def test_an_output_is_asked_on_until_the_end_of_its_round() -> None:
    plan = plan_rounds(StopRule(), 32, 60, 8)
    assert plan.round_ends == (24, 26, 28, 30)
    assert plan.required_samples([], 0) == 24
    assert plan.required_samples([18, 5], 0) == 24  # In the middle of the first round nothing is asked.
    assert plan.required_samples([17, 7], 0) == 26
    assert plan.required_samples([17, 7], 4) == 28  # Leads of 10 and 7, with 4 to come.
    assert plan.required_samples([18, 8], 1) == 28  # Decided as well, but in the middle of a round.
    assert plan.required_samples([17, 7, 4], 0) == 30
    assert plan.required_samples([15, 9, 8], 0) == 32


@pytest.mark.parametrize("text", ["decided", "risk=0.01", "risk=0.25", "risk=1e-05"])
def test_a_rule_is_read_and_written_alike(text: str) -> None:
    assert str(StopRule.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", "Decided", "risk", "risk=", "risk=0", "risk=1", "risk=1.5", "risk=-0.1", "risk=x"]
)
def test_a_rule_that_cannot_be_meant_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="neither 'decided' nor a risk between 0 and 1"):
        StopRule.parse(text)

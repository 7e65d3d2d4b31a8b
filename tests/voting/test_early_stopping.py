"""Early stopping: certain decisions against all continuations, risks against the urn model, and rounds."""

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
from harness.voting.change_bound import CONCENTRATION, DISCOUNT, change_bound
from harness.voting.early_stopping import StopRule, is_decided, plan_rounds
from harness.voting.ranking import Vote, rank_votes, split_ties
from tests.support.runs.votes import vote_k

FAILURE = -1
Logprob = float | None


def grid(name: int) -> Grid:
    return Grid(1, 2, bytes(divmod(name, 10)))


def best_tie_sets(votes: list[Vote]) -> list[frozenset[Grid]]:
    """Return the tie sets of the two best grids, on which vote_1 and vote_2 depend for any right answer."""
    shown: list[frozenset[Grid]] = []
    for group_set in split_ties(rank_votes(votes)):
        if sum(map(len, shown)) < 2:
            shown.append(frozenset(group.grid for group in group_set))
    return shown


def continuations(distinct: int, left: int, logprobs: tuple[Logprob, ...]) -> Iterator[list[Vote]]:
    """Yield all votes that ``left`` samples can add to those for ``distinct`` grids; samples may fail."""
    answers = [Vote(grid(name), logprob) for name in range(distinct + left) for logprob in logprobs]
    for drawn in range(left + 1):
        yield from map(list, itertools.combinations_with_replacement(answers, drawn))


known = st.sampled_from([-0.1, -0.5, -2.0])
small_votes = st.lists(st.builds(Vote, st.integers(0, 3).map(grid), known), max_size=8)


def relabelled(votes: list[Vote]) -> list[Vote]:
    """Return the votes with their grids renamed 0, 1, 2 …, so that further names are new grids."""
    names = {old: grid(place) for place, old in enumerate(dict.fromkeys(vote.grid for vote in votes))}
    return [Vote(names[vote.grid], vote.mean_logprob) for vote in votes]


@given(small_votes.map(relabelled), st.integers(1, 2))
def test_decided_iff_no_continuation_changes_the_two_best_grids(votes: list[Vote], left: int) -> None:
    counts = Counter(vote.grid for vote in votes)
    # Answers may come without log-probabilities, with the best possible ones, or with very bad ones.
    same = all(
        best_tie_sets(votes + more) == best_tie_sets(votes)
        for more in continuations(len(counts), left, (None, 0.0, -9.0))
    )
    assert is_decided(list(counts.values()), left) == same


@given(st.tuples(*[st.integers(0, 9)] * 4).map(list), st.integers(0, 3))
def test_decided_iff_no_continuation_changes_the_two_best_grids_with_uneven_counts(
    counts: list[int], left: int
) -> None:
    votes = relabelled([Vote(grid(name), -0.5) for name, count in enumerate(counts) for _ in range(count)])
    distinct = len({vote.grid for vote in votes})
    same = all(
        best_tie_sets(votes + more) == best_tie_sets(votes) for more in continuations(distinct, left, (None, 0.0))
    )
    assert is_decided(counts, left) == same


@given(st.tuples(*[st.integers(0, 4)] * 3).map(list), st.integers(1, 3))
def test_with_known_log_probabilities_decided_is_at_most_one_sample_late(counts: list[int], left: int) -> None:
    """If a lead is not decided with one sample less, some samples with known log-probabilities change the result."""
    if is_decided(counts, left - 1):
        return
    votes = relabelled([Vote(grid(name), -0.5) for name, count in enumerate(counts) for _ in range(count)])
    distinct = len({vote.grid for vote in votes})
    assert len({tuple(best_tie_sets(votes + more)) for more in continuations(distinct, left, (-0.1, -9.0))}) > 1


@given(st.lists(st.tuples(st.integers(-1, 4), st.none() | known), min_size=7, max_size=40), st.integers(0, 9))
def test_a_decided_output_has_the_score_of_the_full_run(samples: list[tuple[int, Logprob]], truth: int) -> None:
    votes = [None if name == FAILURE else Vote(grid(name), logprob) for name, logprob in samples]
    for drawn in range(len(votes)):
        early = [vote for vote in votes[:drawn] if vote is not None]
        if is_decided(list(Counter(vote.grid for vote in early).values()), len(votes) - drawn):
            full = [vote for vote in votes if vote is not None]
            for k in (1, 2):
                assert vote_k(early, grid(truth), k) == vote_k(full, grid(truth), k)


def test_smallest_leads_that_are_decided() -> None:
    assert is_decided([16, 8], 7)
    assert not is_decided([15, 8], 7)
    assert not is_decided([16, 7], 7)
    assert not is_decided([16, 8, 1], 7)
    assert not is_decided([31], 1)
    assert not is_decided([], 1)
    assert is_decided([], 0)


def urn(counts: tuple[int, ...], failures: int, left: int) -> dict[tuple[tuple[int, ...], int], float]:
    """Return the probabilities of all final (counts, failures), sample by sample; new grids follow the old ones."""
    states = {(counts, failures): 1.0}
    for _ in range(left):
        after: dict[tuple[tuple[int, ...], int], float] = {}
        for (votes, failed), chance in states.items():
            mass = sum(votes) + failed + CONCENTRATION
            events = [((*votes[:i], c + 1, *votes[i + 1 :]), failed, c - DISCOUNT) for i, c in enumerate(votes)]
            events += [((*votes, 1), failed, CONCENTRATION + DISCOUNT * len(votes)), (votes, failed + 1, failed)]
            for state, lost, weight in events:
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
def test_change_bound_is_the_sum_of_its_events_under_the_urn(state: tuple[tuple[int, ...], int, int]) -> None:
    counts, failures, left = state
    if len(counts) < 2:
        counts = (*counts, 7)[: len(counts) + 1] if counts else (7,)
    counts = tuple(sorted(counts, reverse=True))
    events = changed = 0.0
    for (final, _), chance in urn(counts, failures, left).items():
        first, second = final[0], final[1] if len(counts) > 1 else 0
        new = final[len(counts) :]
        reached = (second >= first) + sum(c >= second for c in final[2 : len(counts)]) + sum(c >= second for c in new)
        events += chance * reached
        changed += chance * (reached > 0)
    bound = change_bound(counts, failures, left)
    assert bound == pytest.approx(min(events, 1.0), abs=2e-9)
    assert bound >= changed - 2e-9


def plain_bound(counts: tuple[int, ...], failures: int, left: int) -> float:
    """Compute change_bound with every sum written out over all pairs of numbers of samples."""
    first, second, *others = (*sorted(counts, reverse=True), 0, 0)
    mass = sum(counts) + failures + CONCENTRATION

    def log_weights(weight: float) -> np.ndarray:
        x = np.arange(1, left + 1)
        with np.errstate(divide="ignore"):
            return np.concatenate(([0.0], np.cumsum(np.log((weight + x - 1) / x))))

    def reaching(lead: int, leader_weight: float, log_rival: np.ndarray, rest: float) -> float:
        x, y = np.ogrid[: left + 1, : left + 1]
        counted = (y >= lead + x) & (x + y <= left)
        logs = log_weights(leader_weight)[x] + log_rival[y] + log_weights(rest)[np.maximum(left - x - y, 0)]
        return float(np.exp(logs[counted] - log_weights(mass)[left]).sum())

    def overtaking(leader: int, rival: int) -> float:
        leader_weight, other = max(leader - DISCOUNT, 0.0), max(rival - DISCOUNT, 0.0)
        return reaching(leader - rival, leader_weight, log_weights(other), mass - leader_weight - other)

    total = overtaking(first, second) + sum(overtaking(second, count) for count in others if count)
    leader_weight, sizes = max(second - DISCOUNT, 0.0), np.arange(2, left + 1)
    grown = np.concatenate(([0.0], np.cumsum(np.log((sizes - 1 - DISCOUNT) / sizes))))
    unseen = CONCENTRATION + DISCOUNT * np.count_nonzero(counts)
    log_new = np.concatenate(([-math.inf], math.log(unseen) + grown))[: left + 1]
    return round(min(total + reaching(second, leader_weight, log_new, mass - leader_weight + DISCOUNT), 1.0), 9)


@given(
    st.lists(st.integers(0, 80), max_size=8).map(tuple), st.integers(0, 40), st.sampled_from([1, 2, 3, 7, 16, 50, 120])
)
@settings(deadline=None)
def test_change_bound_equals_its_sums_written_out(counts: tuple[int, ...], failures: int, left: int) -> None:
    expected = plain_bound(counts, failures, left)
    assert change_bound(counts, failures, left) == pytest.approx(expected, rel=0, abs=1.1e-9)  # both are rounded


def test_change_bound_of_a_long_run_takes_under_10_ms() -> None:
    began = time.process_time()
    for second in range(100, 200, 10):  # all different, as results are cached
        change_bound([260, second, 20, 5, 3, 1], 11, 501)
    assert (time.process_time() - began) / 10 < 0.01  # 27 ms if all pairs are listed


@given(urns)
def test_change_bound_is_a_probability_and_zero_if_decided(state: tuple[tuple[int, ...], int, int]) -> None:
    counts, failures, left = state
    bound = change_bound(counts, failures, left)
    assert 0 <= bound <= 1
    assert bound == change_bound(counts[::-1], failures, left)
    if is_decided(counts, left):
        assert bound == 0


@pytest.mark.parametrize("n", [8, 32, 128, 1024])
def test_change_bound_falls_as_the_lead_grows(n: int) -> None:
    thirds = range(n // 8, -1, -max(1, n // 32))
    risks = [change_bound([n // 4, n // 8, third], n // 8 - third, n // 2) for third in thirds]
    assert all(0 <= risk <= 1 for risk in risks)
    assert risks == sorted(risks, reverse=True)
    assert risks[0] > 0.4 > risks[-1] or n == 8


def test_changes_after_stopping_are_rarer_than_the_risk_for_samples_from_the_urn() -> None:
    """Of outputs stopped at a risk below 10 %, fewer than a tenth change their two best grids later."""
    rule, changed, stopped = StopRule(0.1), 0, 0
    plan = plan_rounds(rule, 32, 400, 8)
    for output in range(400):
        samples = from_the_urn(Stream("urn", output), plan.n)
        for end in plan.round_ends:
            early = [Vote(grid(name), -0.5) for name in samples[:end] if name != FAILURE]
            if plan.required_samples(list(Counter(v.grid for v in early).values()), end - len(early)) == end:
                stopped += 1
                full = [Vote(grid(name), -0.5) for name in samples if name != FAILURE]
                changed += best_tie_sets(full) != best_tie_sets(early)
                break
    assert stopped > 100
    assert changed < 0.1 * stopped


def from_the_urn(stream: Stream, n: int) -> list[int]:
    """Sample names of grids from the urn; a twentieth of the samples fail."""
    counts: list[int] = []
    samples = []
    for _ in range(n):
        if stream.below(20) == 0:
            samples.append(FAILURE)
            continue
        at = stream.uniform() * (sum(counts) + CONCENTRATION)
        name = bisect_right(list(itertools.accumulate(count - DISCOUNT for count in counts)), at)
        counts += [0] * (name == len(counts))
        counts[name] += 1
        samples.append(name)
    return samples


@given(st.integers(1, 300), st.integers(1, 2000), st.sampled_from([1, 8, 32]), st.sampled_from([0.0, 0.01, 0.3]))
def test_rounds_are_ascending_and_end_before_the_last_sample(n: int, outputs: int, cycle: int, risk: float) -> None:
    plan = plan_rounds(StopRule(risk), n, outputs, cycle)
    assert list(plan.round_ends) == sorted(set(plan.round_ends))
    assert all(0 < end < n for end in plan.round_ends)
    assert plan.first_round == (plan.round_ends[0] if plan.round_ends else n)
    # All predictions differ, so that nothing is decided before the last round.
    assert [plan.required_samples([1] * drawn, 0) for drawn in (0, *plan.round_ends)] == [*plan.round_ends, n]
    if not risk and n >= 7:
        # With a large enough lead the last round is skipped.
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
    assert not plan_rounds(StopRule(0.01), 20, 400, 8).is_balanced  # a first round of 8, of 20 samples
    assert plan_rounds(StopRule(0.01), 12, 400, 1).is_balanced


def test_required_samples_are_the_end_of_the_current_round() -> None:
    plan = plan_rounds(StopRule(), 32, 60, 8)
    assert plan.round_ends == (24, 26, 28, 30)
    assert plan.required_samples([], 0) == 24
    assert plan.required_samples([18, 5], 0) == 24  # In the middle of the first round the rule is not applied.
    assert plan.required_samples([17, 7], 0) == 26
    assert plan.required_samples([17, 7], 4) == 28  # Leads of 10 and 7, with 4 to come.
    assert plan.required_samples([18, 8], 1) == 28  # Decided as well, but in the middle of a round.
    assert plan.required_samples([17, 7, 4], 0) == 30
    assert plan.required_samples([15, 9, 8], 0) == 32


@pytest.mark.parametrize("text", ["decided", "risk=0.01", "risk=0.25", "risk=1e-05"])
def test_a_stopping_rule_round_trips_as_text(text: str) -> None:
    assert str(StopRule.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", "Decided", "risk", "risk=", "risk=0", "risk=1", "risk=1.5", "risk=-0.1", "risk=x"]
)
def test_an_invalid_stopping_rule_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="neither 'decided' nor a risk between 0 and 1"):
        StopRule.parse(text)

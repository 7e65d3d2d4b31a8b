"""Rankings and selection rules do not depend on the order of votes and keep ties as ties."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.core.errors import ConfigError
from harness.core.grid import Grid
from harness.core.random_stream import Stream
from harness.predictions.pooled_outputs import merge_votes
from harness.voting.ranking import RankedGrid, Vote, choose_attempts, exact_mean, rank_votes, split_ties
from harness.voting.selection_rules import RULES, get_rule
from tests.support.runs.votes import vote_k

A, B, C, D = (Grid(1, 2, bytes(cells)) for cells in ((0, 1), (1, 0), (2, 2), (3, 3)))

GRIDS = st.sampled_from([A, B, C, D, Grid(2, 1, b"\x00\x01")])
LOGPROBS = st.none() | st.floats(-50, 0)


@st.composite
def vote_lists(draw: st.DrawFn, least: int = 0) -> list[Vote]:
    count = draw(st.integers(least, 10))
    return [
        Vote(draw(GRIDS), draw(LOGPROBS), draw(LOGPROBS), draw(st.sampled_from(["identity", "rot90"])), i)
        for i in range(count)
    ]


def ties(groups: list[RankedGrid]) -> list[set[Grid]]:
    return [{group.grid for group in tie} for tie in split_ties(groups)]


def test_count_decides_first_then_the_mean_logprob() -> None:
    votes = [Vote(A, -9.0), Vote(A, -9.0), Vote(B, -2.0), Vote(C, -1.0)]
    assert [(g.grid, g.count, g.mean_logprob, g.tie) for g in rank_votes(votes)] == [
        (A, 2, -9.0, 0),
        (C, 1, -1.0, 1),
        (B, 1, -2.0, 2),
    ]


@pytest.mark.parametrize("unknown", [None, math.nan, -math.inf])
def test_an_unknown_logprob_ties_the_grids_with_its_count_only(unknown: float | None) -> None:
    votes = [Vote(A, -1.0), Vote(B, -2.0), Vote(C, unknown)] + [Vote(D, -5.0)] * 2
    assert ties(rank_votes(votes)) == [{D}, {A, B, C}]
    assert rank_votes(votes)[-1].mean_logprob is None


def test_equal_logprobs_tie() -> None:
    assert ties(rank_votes([Vote(A, -1.0), Vote(B, -1.0), Vote(C, -2.0)])) == [{A, B}, {C}]


def test_vote_k_of_a_tie_is_a_probability() -> None:
    votes = [Vote(A), Vote(A), Vote(B), Vote(C), Vote(D)]
    assert vote_k(votes, A, 1) == 1.0
    assert vote_k(votes, B, 1) == 0.0
    assert vote_k(votes, B, 2) == pytest.approx(1 / 3)
    assert vote_k(votes, B, 3) == pytest.approx(2 / 3)
    assert vote_k(votes, Grid(1, 1, b"\x05"), 9) == 0.0
    assert vote_k([], A, 2) == 0.0


@given(vote_lists(), st.randoms())
def test_no_rule_depends_on_the_order_of_the_votes(votes: list[Vote], random: object) -> None:
    shuffled = list(votes)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    for rule in (rule for rule in RULES.values() if not rule.needs_rescores):
        assert rule.rank(shuffled) == rule.rank(votes), rule.name
    assert choose_attempts(rank_votes(shuffled), Stream(3)) == choose_attempts(rank_votes(votes), Stream(3))


@given(vote_lists())
def test_a_ranking_holds_every_distinct_grid_once_with_its_count(votes: list[Vote]) -> None:
    counts = Counter(vote.grid for vote in votes)
    for name, rule in ((name, rule) for name, rule in RULES.items() if not rule.needs_rescores):
        groups = rule.rank(votes)
        assert len({group.grid for group in groups}) == len(groups)
        assert all(group.count == counts[group.grid] for group in groups)
        assert name == "marc" or len(groups) == len(counts)
        tie_numbers = [group.tie for group in groups]
        assert tie_numbers == sorted(tie_numbers)
        assert sorted(set(tie_numbers)) == list(range(len(set(tie_numbers))))


@given(vote_lists(), st.integers(1, 6))
def test_vote_k_sums_to_k_over_all_grids(votes: list[Vote], k: int) -> None:
    distinct = {vote.grid for vote in votes}
    assert sum(vote_k(votes, grid, k) for grid in distinct) == pytest.approx(min(k, len(distinct)))


@given(vote_lists(least=1), st.integers(1, 4), st.integers(0, 99))
def test_attempts_are_distinct_and_have_a_positive_vote_k(votes: list[Vote], k: int, seed: int) -> None:
    chosen = choose_attempts(rank_votes(votes), Stream(seed), k)
    assert len(chosen) == len(set(chosen)) == min(k, len({vote.grid for vote in votes}))
    assert all(vote_k(votes, grid, k) > 0 for grid in chosen)
    assert all(grid in chosen for grid in {vote.grid for vote in votes} if vote_k(votes, grid, k) == 1)


def test_attempts_break_ties_uniformly() -> None:
    votes = [Vote(A), Vote(A), Vote(B), Vote(C), Vote(D)]
    seconds = Counter(choose_attempts(rank_votes(votes), Stream(seed, "task", 0))[1] for seed in range(3_000))
    assert set(seconds) == {B, C, D}
    assert all(900 < count < 1_100 for count in seconds.values())


@given(st.lists(st.floats(-100, 100), min_size=1))
def test_the_mean_is_correctly_rounded(values: list[float]) -> None:
    exact = sum(map(Fraction, values)) / len(values)
    assert exact_mean(values) == pytest.approx(float(exact), rel=1e-15, abs=5e-324)


def test_rule_logprob_adds_probabilities() -> None:
    votes = [Vote(A, sum_logprob=math.log(0.2), view_index=view) for view in (0, 1)]
    votes.append(Vote(B, sum_logprob=math.log(0.3)))
    assert ties(RULES["logprob"].rank(votes)) == [{A}, {B}]
    votes[2] = Vote(B, sum_logprob=math.log(0.5))
    assert ties(RULES["logprob"].rank(votes)) == [{B}, {A}]
    assert ties(RULES["logprob"].rank([*votes, Vote(B, view_index=1), Vote(C)])) == [{A}, {B, C}]


def test_rule_logprob_counts_a_view_once_however_often_it_was_drawn() -> None:
    draws = [Vote(A, sum_logprob=math.log(p), sample=k) for k, p in enumerate((0.2, 0.1, 0.2))]
    others = [Vote(B, sum_logprob=math.log(0.15), sample=3 + view, view_index=view) for view in (1, 2)]
    assert ties(RULES["logprob"].rank([*draws, *others])) == [{B}, {A}]
    assert ties(RULES["logprob"].rank([draws[1], *others[:1]])) == [{B}, {A}]
    assert ties(RULES["logprob"].rank([*draws, Vote(B, sum_logprob=math.log(0.3), sample=9)])) == [{B}, {A}]


@given(
    st.lists(st.tuples(st.sampled_from([A, B, C]), st.integers(0, 2), st.floats(-9, -0.1)), min_size=1, max_size=12),
    st.integers(1, 2),
)
def test_rule_logprob_ranks_a_run_as_the_pool_of_it(draws: list[tuple[Grid, int, float]], times: int) -> None:
    votes = [Vote(grid, p, p, sample=k, view_index=view) for k, (grid, view, p) in enumerate(draws)]
    pooled = merge_votes([("seed 0", votes)] * times)
    assert ties(RULES["logprob"].rank(votes)) == ties(RULES["logprob"].rank(pooled))


def test_rule_logprob_compares_answers_too_long_for_a_float() -> None:
    votes = [Vote(A, sum_logprob=-2000.0), *(Vote(B, sum_logprob=-2000.5, view_index=view) for view in (0, 1))]
    assert ties(RULES["logprob"].rank(votes)) == [{B}, {A}]


def test_rule_first_ranks_by_sample_index() -> None:
    votes = [Vote(B, sample=1), Vote(B, sample=2), Vote(A, sample=0), Vote(C, sample=3)]
    assert ties(RULES["first"].rank(votes)) == [{A}, {B}, {C}]


def test_rule_first_takes_the_likeliest_grid_of_a_view() -> None:
    votes = [Vote(B, sum_logprob=-2.0), Vote(A, sum_logprob=-1.0), Vote(C, sum_logprob=-0.1, sample=1)]
    assert ties(RULES["first"].rank(votes)) == [{A}, {B}, {C}]


def test_rule_count_nll_can_rank_a_likely_grid_above_one_with_more_votes() -> None:
    votes = [Vote(A, sum_logprob=-3.0), Vote(A, sum_logprob=-3.0), Vote(B, sum_logprob=-0.5), Vote(C)]
    assert ties(RULES["count-nll"].rank(votes)) == [{B}, {A}, {C}]


def test_rule_marc_counts_views_not_predictions() -> None:
    votes = [Vote(A, view="rot90")] * 9 + [Vote(B, view=view) for view in ("identity", "rot180", "flip_lr")]
    assert ties(RULES["vote"].rank(votes)) == [{A}, {B}]
    assert ties(RULES["marc"].rank(votes)) == [{B}, {A}]


def test_rule_marc_has_three_nominees_per_view_and_prefers_the_untransformed_view() -> None:
    counts = {A: 4, B: 3, C: 2, D: 1}
    votes = [Vote(grid, view="rot90") for grid, count in counts.items() for _ in range(count)]
    assert ties(RULES["marc"].rank(votes)) == [{A, B, C}]
    assert ties(RULES["marc"].rank([*votes, Vote(D)])) == [{D}, {A, B, C}]
    assert ties(RULES["marc"].rank([*votes, Vote(D, view="rot90")])) == [{A, B, C, D}]


@given(vote_lists())
@settings(max_examples=50)
def test_the_vote_is_the_default_rule(votes: list[Vote]) -> None:
    assert get_rule("vote").rank(votes) == rank_votes(votes)


def test_an_unknown_rule_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'median'.*vote, logprob, first, marc, count-nll"):
        get_rule("median")

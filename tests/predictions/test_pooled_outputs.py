"""Votes of several members as those of one model: brute force, and what must change nothing."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.grid import Grid
from harness.core.symmetry import SYMMETRIES
from harness.predictions.pooled_outputs import (
    NO_CANDIDATE,
    MemberPredictions,
    PooledOutput,
    distinct_views,
    lacks_logprobs,
    merge_votes,
    pooled_predictions,
)
from harness.scoring.rule_scores import unusable_reason
from harness.voting.ranking import RankedGrid, Vote
from harness.voting.selection_rules import RULES, Rule
from tests.support.runs.pools import pool_member

GRIDS = [Grid(1, 1, bytes((cell,))) for cell in range(5)]
VIEWS = 8
SPACES = ("seed 0", "seed 1", "unaugmented", "file f")
RESCORES = {grid: (-1.0 - cell / 3, -2.0 / (cell + 1)) for cell, grid in enumerate(GRIDS)}

logprobs = st.one_of(st.none(), st.sampled_from([-0.5, -1.25, -3.0]), st.floats(-20, 0))


@st.composite
def members(draw: st.DrawFn, known: bool = False) -> MemberPredictions:
    """Draw a member with votes for one test output, as a drawn or an enumerated run gives them."""
    space = draw(st.sampled_from(SPACES))
    enumerated = draw(st.booleans())
    votes = []
    for sample in range(draw(st.integers(0, VIEWS))):
        view = 0 if space == "unaugmented" else sample
        for cell in draw(st.lists(st.integers(0, 4), max_size=3 if enumerated else 1, unique=True)):
            logprob = draw(st.floats(-20, 0) if known else logprobs)
            mean = None if logprob is None else logprob / 4
            votes.append(Vote(GRIDS[cell], mean, logprob, SYMMETRIES[view], sample, view))
    return pool_member({("t", 0): votes}, space)


pools = st.lists(members(), min_size=1, max_size=5)


def pooled(pool: Sequence[MemberPredictions]) -> PooledOutput:
    output = pooled_predictions(pool, {"t": 1}).outputs["t"][0]
    assert isinstance(output, PooledOutput)
    return output


def rankings(pool: Sequence[MemberPredictions]) -> dict[str, list[RankedGrid]]:
    """Return the ranking of every rule."""
    votes = pooled(pool).votes()
    return {rule.name: rule.rank(votes, RESCORES if rule.needs_rescores else None) for rule in RULES.values()}


@given(pools)
def test_a_view_and_grid_is_one_vote_with_the_largest_probability(pool: list[MemberPredictions]) -> None:
    expected: dict[tuple[str, int, Grid], list[Vote]] = {}
    for member in pool:
        for vote in member.votes["t", 0]:
            expected.setdefault((member.record.view_space, vote.view_index, vote.grid), []).append(vote)
    votes = pooled(pool).votes()
    assert len(votes) == len(expected)
    counted = {grid: sum(vote.grid == grid for vote in votes) for grid in GRIDS}
    assert counted == {grid: sum(key[2] == grid for key in expected) for grid in GRIDS}
    for grid in GRIDS:
        strongest = []
        for (_, _, place), group in expected.items():
            if place == grid:
                known = [vote.sum_logprob for vote in group if vote.sum_logprob is not None]
                strongest.append((max(known, default=None), min(vote.sample for vote in group)))
        merged = [(vote.sum_logprob, vote.sample) for vote in votes if vote.grid == grid]
        assert sorted(merged, key=str) == sorted(strongest, key=str)
    assert len({vote.view_index for vote in votes}) == len({key[:2] for key in expected}) == pooled(pool).count


@given(pools, st.data())
def test_a_member_added_twice_changes_no_ranking(pool: list[MemberPredictions], data: st.DataObject) -> None:
    again = data.draw(st.sampled_from(pool))
    assert rankings([*pool, again]) == rankings(pool)


@given(pools, st.randoms(use_true_random=False))
def test_the_order_of_members_and_votes_changes_nothing(pool: list[MemberPredictions], random: object) -> None:
    shuffle = random.shuffle  # type: ignore[attr-defined]
    other = []
    for member in pool:
        votes = list(member.votes["t", 0])
        shuffle(votes)
        other.append(replace(member, votes={("t", 0): votes}))
    shuffle(other)
    assert rankings(other) == rankings(pool)
    assert sorted(pooled(other).votes(), key=str) == sorted(pooled(pool).votes(), key=str)


@given(pools, st.data())
def test_a_member_that_is_surpassed_changes_no_ranking(pool: list[MemberPredictions], data: st.DataObject) -> None:
    """It proposes some of the views and grids of another, later and less likely."""
    source = data.draw(st.sampled_from(pool))
    votes = [
        replace(vote, sum_logprob=vote.sum_logprob and vote.sum_logprob - 1, sample=vote.sample + 1)
        for vote in source.votes["t", 0]
        if data.draw(st.booleans())
    ]
    assert rankings([*pool, replace(source, votes={("t", 0): votes})]) == rankings(pool)


@given(pools)
def test_members_of_one_pool_merge_in_any_grouping(pool: list[MemberPredictions]) -> None:
    """Merging is associative: the votes of a pool of pools are those of one pool."""
    every = [(member.record.view_space, member.votes["t", 0]) for member in pool]
    once = merge_votes(every)
    split = [(space, [vote for s, votes in every if s == space for vote in votes]) for space in {s for s, _ in every}]
    assert sorted(merge_votes(split), key=str) == sorted(once, key=str)


@given(pools)
def test_a_pool_of_one_enumerated_member_ranks_as_the_member(pool: list[MemberPredictions]) -> None:
    (member, *_) = pool
    votes = list(member.votes["t", 0])
    if member.record.view_space != "unaugmented":
        for rule in RULES.values():
            rescores = RESCORES if rule.needs_rescores else None
            assert rankings([member])[rule.name] == rule.rank(votes, rescores)


@pytest.mark.parametrize("rule", [rule for rule in RULES.values() if rule.name in ("poe", "kgmon")])
@given(pools)
def test_rescored_rules_by_brute_force(rule: Rule, pool: list[MemberPredictions]) -> None:
    views: dict[Grid, set[tuple[str, int]]] = {}
    for member in pool:
        for vote in member.votes["t", 0]:
            views.setdefault(vote.grid, set()).add((member.record.view_space, vote.view_index))
    keys = {}
    for grid, proposing in views.items():
        total = sum(RESCORES[grid])
        keys[grid] = total if rule.name == "poe" else len(proposing) + total / 2
    ranking = rankings(pool)[rule.name]
    assert {entry.grid for entry in ranking} == set(views)
    for better, worse in itertools.pairwise(ranking):
        assert keys[better.grid] >= keys[worse.grid] - 1e-12


def test_check_values() -> None:
    first = pool_member({("t", 0): [Vote(GRIDS[0], -0.1, -0.4, sample=0, view_index=0)]}, "seed 0", name="a")
    second = pool_member(
        {
            ("t", 0): [
                Vote(GRIDS[0], -0.3, -1.2, sample=0, view_index=0),
                Vote(GRIDS[1], -0.2, -0.8, sample=0, view_index=0),
                Vote(GRIDS[1], -0.5, -2.0, sample=1, view_index=1),
            ]
        },
        "seed 0",
        name="b",
    )
    foreign = pool_member({("t", 0): [Vote(GRIDS[0], sample=1, view_index=1)]}, "file f", views=2, name="c")
    votes = pooled([first, second, foreign]).votes()
    assert [(v.grid, v.sum_logprob, v.sample) for v in votes] == [
        (GRIDS[0], -0.4, 0), (GRIDS[0], None, 1), (GRIDS[1], -0.8, 0), (GRIDS[1], -2.0, 1)
    ]  # fmt: skip
    assert len({v.view_index for v in votes}) == 3
    predictions = pooled_predictions([first, second, foreign], {"t": 1, "u": 1})
    assert distinct_views([m.record for m in (first, second, foreign)]) == 8 + 2
    assert predictions.failures == {NO_CANDIDATE: (10 - 3) + 10}
    assert predictions.missing == ["u"]


def test_probabilities_are_added_only_if_all_are_known() -> None:
    known = pool_member({("t", 0): [Vote(GRIDS[0], -0.1, -0.4)]}, "seed 0", name="a")
    foreign = pool_member({("t", 0): [Vote(GRIDS[1])]}, "file f", name="c")
    assert lacks_logprobs(pooled_predictions([known], {"t": 1})) is None
    predictions = pooled_predictions([known, foreign], {"t": 1})
    assert lacks_logprobs(predictions) == "1 of the pool's 2 votes have no log-probability, those of others' files"
    for name in ("logprob", "count-nll"):
        assert unusable_reason(RULES[name], predictions) == lacks_logprobs(predictions)
    for name in ("vote", "first", "marc"):
        assert unusable_reason(RULES[name], predictions) is None

"""Rules on candidates that were scored under the same views: products, refusals, and invariances."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.errors import ConfigError
from harness.core.grid import Grid
from harness.voting.ranking import RankedGrid, Vote, split_ties
from harness.voting.selection_rules import RULES, GridRescores, Rule

A, B, C, D = (Grid(1, 1, bytes((k,))) for k in range(4))
POE, KGMON = RULES["poe"], RULES["kgmon"]

VOTES = st.lists(
    st.builds(
        lambda grid, view, logprob: Vote(grid, logprob, logprob, "identity", view, view),
        st.sampled_from([A, B, C, D]),
        st.integers(0, 5),
        st.floats(-9, 0),
    ),
    min_size=1,
    max_size=12,
)
RESCORES = st.integers(1, 8).flatmap(
    lambda v: st.tuples(*[st.lists(st.floats(-50, 0), min_size=v, max_size=v)] * 4).map(
        lambda values: dict(zip((A, B, C, D), values, strict=True))
    )
)


def ties(ranking: list[RankedGrid]) -> list[set[Grid]]:
    return [{entry.grid for entry in tie} for tie in split_ties(ranking)]


def proposal(grid: Grid, *views: int) -> list[Vote]:
    return [Vote(grid, view_index=view, sample=view) for view in views]


def test_check_values() -> None:
    votes = [*proposal(A, 0, 1, 2, 3), *proposal(B, 4), *proposal(C, 5, 5, 5)]
    rescores = {A: [-4.0, -4.0], B: [-1.0, -0.5], C: [-2.0, -2.0]}
    assert ties(POE.rank(votes, rescores)) == [{B}, {C}, {A}]  # -8, -1.5, -4
    assert ties(KGMON.rank(votes, rescores)) == [{B}, {A}, {C}]  # 4 - 4, 1 - 0.75, 1 - 2
    assert ties(RULES["vote"].rank(votes, rescores)) == [{A}, {C}, {B}]


@given(VOTES, RESCORES)
def test_poe_orders_by_the_product_of_probabilities(votes: list[Vote], rescores: dict[Grid, list[float]]) -> None:
    ranking = POE.rank(votes, rescores)
    assert {entry.grid for entry in ranking} == {vote.grid for vote in votes}
    products = [math.fsum(rescores[entry.grid]) for entry in ranking]
    assert products == sorted(products, reverse=True)


@given(VOTES, RESCORES, st.randoms())
def test_rankings_ignore_the_order_and_repeated_members(
    votes: list[Vote], rescores: dict[Grid, list[float]], random: object
) -> None:
    shuffled = list(votes)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    backwards: GridRescores = {grid: rescores[grid] for grid in (D, C, B, A)}
    for rule in (POE, KGMON):
        assert rule.rank(shuffled, backwards) == rule.rank(votes, rescores)
        assert ties(rule.rank(votes * 2, rescores)) == ties(rule.rank(votes, rescores))


@pytest.mark.parametrize("rule", [POE, KGMON])
@pytest.mark.parametrize(
    ("rescores", "message"),
    [
        (None, "2 of 2 grids were not rescored"),
        ({A: [-1.0]}, "1 of 2 grids were not rescored"),
        ({A: [-1.0], B: []}, "1 of 2 grids were not rescored"),
        ({A: [-1.0], B: [-1.0, -2.0]}, "under 1 and 2 views"),
        ({A: [-1.0], B: [math.nan]}, "not a number"),
    ],
)
def test_what_was_not_rescored_alike_is_refused(rule: Rule, rescores: GridRescores | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rule.rank([*proposal(A, 0), *proposal(B, 1)], rescores)


@pytest.mark.parametrize("rule", [POE, KGMON])
def test_candidates_that_top_left_out_come_last_and_tie(rule: Rule) -> None:
    votes = [*proposal(A, 0), *proposal(B, 0, 1, 2), *proposal(C, 1), *proposal(D, 3)]
    ranking = rule.rank(votes, {C: [-9.0], A: [-1.0]}, limited=True)
    assert ties(ranking) == [{A}, {C}, {B, D}]

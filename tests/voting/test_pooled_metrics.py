"""Scores of the views of a pool: a recount by other code."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.grid import Grid
from harness.voting.metrics import METRICS, POOLED_METRICS, average_outputs, score_votes, task_curves
from harness.voting.pooled_metrics import score_pooled_votes
from harness.voting.ranking import Vote
from tests.support.runs.votes import vote_k

GRIDS = [Grid(1, 1, bytes((cell,))) for cell in range(4)]
TRUTH = GRIDS[0]
VIEWS = 5

drawn_votes = st.lists(st.tuples(st.integers(0, VIEWS - 1), st.integers(0, 3)), max_size=12)


def votes_of(drawn: list[tuple[int, int]]) -> list[Vote]:
    """Return votes for these (view, grid)."""
    return [Vote(GRIDS[grid], sample=number, view_index=view) for number, (view, grid) in enumerate(drawn)]


@given(drawn_votes)
def test_views_are_counted_once(drawn: list[tuple[int, int]]) -> None:
    score = score_pooled_votes(votes_of(drawn), TRUTH, VIEWS)
    by_view = [{grid for view, grid in drawn if view == k} for k in range(VIEWS)]
    assert score.exact == sum(0 in grids for grids in by_view)
    assert score.failures == sum(not grids for grids in by_view)
    wrong = [sum(k in grids for grids in by_view) for k in (1, 2, 3)]
    assert sorted(score.wrong) == sorted(count for count in wrong if count)
    assert (score.vote_1, score.vote_2) == tuple(vote_k(votes_of(drawn), TRUTH, k) for k in (1, 2))
    assert score.values() == (float(score.exact > 0), score.vote_1, score.vote_2, score.failures / VIEWS)
    assert score.metrics == POOLED_METRICS


@given(st.lists(drawn_votes, min_size=1, max_size=3))
def test_curves_are_exact_over_subsets_of_views(outputs: list[list[tuple[int, int]]]) -> None:
    scores = {"t": [score_pooled_votes(votes_of(drawn), TRUTH, VIEWS) for drawn in outputs]}
    curves = task_curves(scores, [1, 2, VIEWS])
    assert list(curves) == ["pass_n"]
    for row, k in enumerate((1, 2, VIEWS)):
        shares = [
            sum(any((view, 0) in drawn for view in subset) for subset in itertools.combinations(range(VIEWS), k))
            for drawn in outputs
        ]
        subsets = len(list(itertools.combinations(range(VIEWS), k)))
        assert curves["pass_n"][row, 0] == pytest.approx(sum(shares) / subsets / len(outputs))


def test_averages_have_the_metrics_of_pools_only() -> None:
    pooled = score_pooled_votes([Vote(TRUTH)], TRUTH, 2)
    tasks = average_outputs({"t": [pooled]})
    assert tasks.metrics == POOLED_METRICS
    assert tasks.values_of("pass_n").tolist() == [1.0]
    assert tasks.strict == {"pass_n": 1.0, "vote_1": 1.0, "vote_2": 1.0}
    drawn = score_votes([Vote(TRUTH)], TRUTH, 2)
    assert drawn.metrics == METRICS
    with pytest.raises(ValueError, match="have no common average"):
        average_outputs({"t": [pooled], "u": [drawn]})


def test_more_views_than_requested_are_refused() -> None:
    with pytest.raises(ValueError, match="2 views were given where 1 were requested"):
        score_pooled_votes(votes_of([(0, 1), (1, 1)]), TRUTH, 1)

"""The running counts of a model: votes and failures while predictions arrive."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.grid import Grid
from harness.voting.live_tally import ModelTally
from harness.voting.ranking import Vote
from tests.support.votes import vote_k

GRIDS = [Grid(1, 1, bytes((c,))) for c in range(4)]


TRUTH = GRIDS[0]


DRAW = st.tuples(
    st.sampled_from([("a", 0), ("a", 1), ("b", 0)]),
    st.none() | st.sampled_from(GRIDS),
    st.sampled_from([-1.0, -0.5, -0.25]),
)


@given(draws=st.lists(DRAW, min_size=1, max_size=40), known=st.booleans())
def test_the_running_vote_equals_the_vote_over_all_predictions_so_far(
    draws: list[tuple[tuple[str, int], Grid | None, float]], known: bool
) -> None:
    tally = ModelTally("m", 100, 40)
    votes: dict[tuple[str, int], list[Vote]] = {}
    for output, grid, logprob in draws:
        tally.add(output, TRUTH, "unparsed" if grid is None else "grid", grid, logprob if known else None)
        own = votes.setdefault(output, [])
        if grid is not None:
            own.append(Vote(grid, logprob if known else None))
    tasks: dict[str, list[float]] = {}
    for (task, _), own in votes.items():
        tasks.setdefault(task, []).append(vote_k(own, TRUTH, 2))
    expected = sum(sum(v) / len(v) for v in tasks.values()) / len(tasks)
    assert tally.vote_2() == pytest.approx(expected)
    assert tally.failures == ({"unparsed": failed} if (failed := sum(grid is None for _, grid, _ in draws)) else {})


def test_a_complete_output_keeps_its_vote_but_not_its_grids() -> None:
    tally = ModelTally("m", 4, 2)
    for output in (("a", 0), ("b", 0)):
        tally.add(output, TRUTH, "grid", GRIDS[0], -0.5)
    assert len(tally.open_outputs) == 2
    tally.add(("a", 0), TRUTH, "grid", GRIDS[1], -0.5)
    assert list(tally.open_outputs) == [("b", 0)]
    assert tally.vote_2() == 1.0
    unknown = ModelTally("m", 4, 2)
    unknown.add(("a", 0), None, "grid", GRIDS[0], -0.5)
    assert unknown.vote_2() is None

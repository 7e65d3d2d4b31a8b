"""The running counts of a model: votes and failures while predictions arrive."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.grid import Grid
from harness.voting.live_tally import ModelTally
from harness.voting.ranking import Vote
from tests.support.runs.votes import vote_k

GRIDS = [Grid(1, 1, bytes((c,))) for c in range(4)]
TRUTH = GRIDS[0]
PREDICTION = st.tuples(
    st.sampled_from([("a", 0), ("a", 1), ("b", 0)]),
    st.none() | st.sampled_from(GRIDS),
    st.sampled_from([-1.0, -0.5, -0.25]),
)


@given(predictions=st.lists(PREDICTION, min_size=1, max_size=40), known=st.booleans())
def test_the_running_vote_equals_the_vote_over_all_predictions_so_far(
    predictions: list[tuple[tuple[str, int], Grid | None, float]], known: bool
) -> None:
    tally = ModelTally("m", 100, 40)
    votes: dict[tuple[str, int], list[Vote]] = {}
    for output, grid, logprob in predictions:
        tally.add(output, TRUTH, "unparsed" if grid is None else "grid", grid, logprob if known else None)
        output_votes = votes.setdefault(output, [])
        if grid is not None:
            output_votes.append(Vote(grid, logprob if known else None))
    tasks: dict[str, list[float]] = {}
    for (task, _), output_votes in votes.items():
        tasks.setdefault(task, []).append(vote_k(output_votes, TRUTH, 2))
    expected = sum(sum(v) / len(v) for v in tasks.values()) / len(tasks)
    assert tally.vote_2() == pytest.approx(expected)
    assert tally.failures == (
        {"unparsed": failed} if (failed := sum(grid is None for _, grid, _ in predictions)) else {}
    )


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


def test_skipped_predictions_are_taken_from_the_total() -> None:
    tally = ModelTally("m", 100, 40)
    for _ in range(3):
        tally.add(("a", 0), TRUTH, "grid", GRIDS[0], -0.5)
    tally.stop_output(("a", 0), skipped=37)
    assert (tally.total, tally.done, tally.vote_2(), tally.open_outputs) == (63, 3, 1.0, {})


def test_a_view_has_one_vote_for_each_distinct_grid_that_it_proposes() -> None:
    tally = ModelTally("m", 3, 3)
    tally.add_view(("a", 0), TRUTH, None, [(GRIDS[1], -0.1), (TRUTH, -0.3), (GRIDS[1], -0.4)])
    assert tally.open_outputs["a", 0].votes == {hash(GRIDS[1]): 1, hash(TRUTH): 1}
    tally.add_view(("a", 0), TRUTH, "unparsed", [])
    assert (tally.done, tally.begun, dict(tally.failures)) == (2, 1, {"unparsed": 1})
    assert (tally.open_outputs["a", 0].drawn, tally.open_outputs["a", 0].failures) == (2, 1)
    assert tally.open_outputs["a", 0].probability_in_top(1) == 0.0
    tally.add_view(("a", 0), TRUTH, None, [(TRUTH, -0.5)])
    assert tally.vote_2() == 1.0
    assert tally.open_outputs == {}

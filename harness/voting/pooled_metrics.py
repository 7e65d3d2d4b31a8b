"""Scores of the views of a pool, or of one of its members, for one test output (``bench pool``)."""

from __future__ import annotations

from collections.abc import Sequence

from harness.core.grid import Grid
from harness.voting.metrics import OutputScore
from harness.voting.ranking import Vote, group_votes, probability_in_top, rank_votes


def score_pooled_votes(votes: Sequence[Vote], truth: Grid, n: int) -> OutputScore:
    """Return the scores of the n views for one test output, of which all without a vote count as failures.

    Args:
        votes: in any order; ``view_index`` is the view. A view may have several grids, and several votes for one.
        truth: the right grid.

    Raises:
        ValueError: there are more views than n, or n is below 1.
    """
    answered = len({vote.view_index for vote in votes})
    if n < 1 or answered > n:
        raise ValueError(f"{answered} views were given where {n} were requested")
    views = {grid: len({vote.view_index for vote in group}) for grid, group in group_votes(votes).items()}
    ranking = rank_votes(votes)
    return OutputScore(
        n=n,
        exact=views.get(truth, 0),
        wrong=tuple(sorted((count for grid, count in views.items() if grid != truth), reverse=True)),
        failures=n - answered,
        correct_size=0.0,
        correct_pixels=0.0,
        vote_1=probability_in_top(ranking, truth, 1),
        vote_2=probability_in_top(ranking, truth, 2),
        pooled=True,
    )

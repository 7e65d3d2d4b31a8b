"""Scores of predictions for one test output, as tests write them down."""

from __future__ import annotations

from collections.abc import Sequence

from harness.core.grid import Grid
from harness.voting.metrics import OutputScore, score_votes
from harness.voting.ranking import Vote, probability_in_top, rank_votes


def vote_k(votes: Sequence[Vote], truth: Grid, k: int) -> float:
    """Return vote_k under the default rule."""
    return probability_in_top(rank_votes(votes), truth, k)


def score_output(
    predictions: Sequence[Grid | None],
    truth: Grid,
    n: int | None = None,
    mean_logprobs: Sequence[float | None] | None = None,
) -> OutputScore:
    """Score predictions for one test output; None is a failure, and n defaults to their number."""
    logprobs = mean_logprobs or [None] * len(predictions)
    votes = [Vote(grid, p) for grid, p in zip(predictions, logprobs, strict=True) if grid is not None]
    return score_votes(votes, truth, len(predictions) if n is None else n)

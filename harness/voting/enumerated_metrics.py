"""Scores of the enumerated views of one test output (``--search dfs``)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from harness.core.grid import Grid
from harness.voting.metrics import EnumeratedRates, OutputScore, equal_cells
from harness.voting.ranking import Vote, probability_in_top, rank_votes


def score_views(
    votes: Sequence[Vote], greedy: Mapping[Grid, int], unexplored: Sequence[float], truth: Grid, n: int
) -> OutputScore:
    """Return the scores of the n enumerated views of one test output, of which all without a vote count as failures.

    Args:
        votes: one for each view and each grid that it proposed, in any order; ``sum_logprob`` is the logarithm of the
            grid's probability in the view, ``view_index`` the view.
        greedy: by grid, the number of views whose answer at temperature 0 it is.
        unexplored: the probability of all that was not enumerated, one per view; a missing view counts as 1.
        truth: the right grid.

    Raises:
        ValueError: there are more views than n, n is below 1, or a vote has no probability.
    """
    views = {vote.view_index for vote in votes}
    if n < 1 or len(views) > n or len(unexplored) > n:
        raise ValueError(f"{max(len(views), len(unexplored))} views were given where {n} were requested")
    weights = [(vote.grid, _probability(vote)) for vote in votes]
    ranking = rank_votes(votes)
    exact = sum(entry.count for entry in ranking if entry.grid == truth)
    wrong = sorted((entry.count for entry in ranking if entry.grid != truth), reverse=True)
    return OutputScore(
        n=n,
        exact=exact,
        wrong=tuple(wrong),
        failures=n - len(views),
        correct_size=_mean((weight for grid, weight in weights if grid.shape == truth.shape), n),
        correct_pixels=_mean((weight * equal_cells(grid, truth) for grid, weight in weights), n),
        vote_1=probability_in_top(ranking, truth, 1),
        vote_2=probability_in_top(ranking, truth, 2),
        enumerated=EnumeratedRates(
            accuracy=_mean((weight for grid, weight in weights if grid == truth), n),
            greedy=greedy.get(truth, 0) / n,
            unexplored=_mean([*unexplored, *[1.0] * (n - len(unexplored))], n),
        ),
    )


def _probability(vote: Vote) -> float:
    """Return the probability of a vote's grid in its view."""
    if vote.sum_logprob is None:
        raise ValueError("a grid of an enumerated view needs its probability")
    return math.exp(min(vote.sum_logprob, 0.0))


def _mean(values: Iterable[float], n: int) -> float:
    """Return sum(values) / n, rounded once; at most 1, which rounded probabilities may exceed."""
    return min(math.fsum(values) / n, 1.0)

"""Voting: the distinct predicted grids of a test output, ranked by how many predictions agree.

A ranking keeps ties as ties, and does not depend on the order of the predictions: means are exactly rounded
(``math.fsum``), and tied grids are listed in order of their cells.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from harness.core.grid import Grid
from harness.core.random_stream import Stream


@dataclass(frozen=True, slots=True)
class Vote:
    """A prediction that was parsed to a grid. Log-probabilities are natural logarithms; None or not finite is unknown.

    The last four fields are for selection rules other than the vote, and for enumerated views.
    """

    grid: Grid
    mean_logprob: float | None = None
    """Log-probability of the answer divided by its number of tokens."""
    sum_logprob: float | None = None
    """Log-probability of the answer."""
    view: str = "identity"
    """Name of the symmetry under which the prompt showed the task."""
    sample: int = 0
    """Index of the prediction among those for its test output; of an enumerated answer, the index of its view."""
    view_index: int = 0
    """Index of the augmentation under which the prompt showed the task."""


@dataclass(frozen=True, slots=True)
class RankedGrid:
    """A distinct grid of a ranking."""

    grid: Grid
    count: int
    """Number of votes for it."""
    mean_logprob: float | None
    """Mean of the votes' ``mean_logprob``; None if one of them is unknown."""
    tie: int
    """Index of its tie set, 0 for the best; grids of one tie set are tied."""


Key = tuple[float, ...]
"""Sort key of a grid; larger is better."""


def rank_votes(votes: Sequence[Vote]) -> list[RankedGrid]:
    """Return the distinct grids, best first: by count, then by mean log-probability.

    If the log-probability is unknown for one of the grids with a certain count, all grids with that count are tied.
    """
    votes_by_grid = group_votes(votes)
    means = {grid: exact_mean(v.mean_logprob for v in group) for grid, group in votes_by_grid.items()}
    counts_without_mean = {len(group) for grid, group in votes_by_grid.items() if means[grid] is None}
    keys: dict[Grid, Key] = {}
    for grid, group in votes_by_grid.items():
        mean = means[grid]
        keys[grid] = (len(group),) if mean is None or len(group) in counts_without_mean else (len(group), mean)
    return rank_by_key(votes_by_grid, keys)


def group_votes(votes: Iterable[Vote]) -> dict[Grid, list[Vote]]:
    """Return the votes for each distinct grid."""
    votes_by_grid: dict[Grid, list[Vote]] = {}
    for vote in votes:
        votes_by_grid.setdefault(vote.grid, []).append(vote)
    return votes_by_grid


def rank_by_key(votes_by_grid: dict[Grid, list[Vote]], keys: dict[Grid, Key]) -> list[RankedGrid]:
    """Return the grids that have a key, by descending key; equal keys are a tie set, sorted by shape and cells."""
    order = sorted(keys, key=lambda grid: (grid.height, grid.width, grid.cells))
    order.sort(key=lambda grid: keys[grid], reverse=True)
    ranking: list[RankedGrid] = []
    tie = -1
    last: Hashable = None
    for grid in order:
        if keys[grid] != last:
            tie, last = tie + 1, keys[grid]
        group = votes_by_grid[grid]
        ranking.append(RankedGrid(grid, len(group), exact_mean(v.mean_logprob for v in group), tie))
    return ranking


def split_ties(ranking: Sequence[RankedGrid]) -> list[list[RankedGrid]]:
    """Return a ranking's tie sets, best first; an untied grid is a set of one."""
    sets: list[list[RankedGrid]] = []
    for entry in ranking:
        if not sets or sets[-1][0].tie != entry.tie:
            sets.append([])
        sets[-1].append(entry)
    return sets


def top_k_probability(ahead: int, tied: int, k: int) -> float:
    """Return the probability that an item is in the top k when ties are broken at random.

    Args:
        ahead: number of items that rank higher.
        tied: number of other items that rank the same.
    """
    return min(max((k - ahead) / (tied + 1), 0.0), 1.0)


def probability_in_top(ranking: Sequence[RankedGrid], truth: Grid, k: int) -> float:
    """Return the probability that ``truth`` is in a ranking's top k when ties are broken at random.

    This is vote_k. It is 0 if the ranking does not contain ``truth``.
    """
    ahead = 0
    for tie_set in split_ties(ranking):
        if any(entry.grid == truth for entry in tie_set):
            return top_k_probability(ahead, len(tie_set) - 1, k)
        ahead += len(tie_set)
    return 0.0


def choose_attempts(ranking: Sequence[RankedGrid], stream: Stream, k: int = 2) -> list[Grid]:
    """Return the best k grids of a ranking, or all if it has fewer; ties are broken by ``stream``."""
    attempts: list[Grid] = []
    for tie_set in split_ties(ranking):
        room = k - len(attempts)
        if room <= 0:
            break
        # An untied grid takes no random numbers, so that the numbers for real ties do not depend on it.
        chosen = tie_set if len(tie_set) == 1 else stream.sample(tie_set, min(room, len(tie_set)))
        attempts.extend(entry.grid for entry in chosen)
    return attempts


def exact_mean(values: Iterable[float | None]) -> float | None:
    """Return the mean, rounded once, so that it does not depend on the order of the values.

    The result is None without values, or if one is None or not finite.
    """
    known: list[float] = []
    for value in values:
        if value is None or not math.isfinite(value):
            return None
        known.append(value)
    return math.fsum(known) / len(known) if known else None

"""Voting: distinct grids ranked by how many predictions agree, ties kept as ties.

The result never depends on the order in which predictions arrived: sums are exactly rounded
(``math.fsum``), and tied grids are listed in the order of their cells.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from harness.core.grid import Grid
from harness.core.random_stream import Stream


@dataclass(frozen=True, slots=True)
class Vote:
    """One prediction that parsed to a grid; the last three fields serve selection rules other than the vote.

    ``mean_logprob`` is the answer's log-probability divided by its number of tokens, ``sum_logprob`` the
    log-probability itself (natural logarithms), ``view`` the name of the symmetry the prompt was shown
    under, ``sample`` the prediction's place in the draw. None (or a value that is not finite) is unknown.
    """

    grid: Grid
    mean_logprob: float | None = None
    sum_logprob: float | None = None
    view: str = "identity"
    sample: int = 0


@dataclass(frozen=True, slots=True)
class RankedGrid:
    """One distinct grid of a ranking; groups with the same ``tie`` are tied (0 is the best set, then 1, 2 …).

    ``mean_logprob`` is the mean over the group's votes, None where any vote's is unknown.
    """

    grid: Grid
    count: int
    mean_logprob: float | None
    tie: int


Key = tuple[float, ...]
"""A sort key of which larger is better."""


def rank_votes(votes: Sequence[Vote]) -> list[RankedGrid]:
    """The distinct grids, best first: by count, then by mean log-probability, both descending.

    Where a log-probability is unknown in any of the grids of one count, all grids of that count are tied.
    """
    members = group_votes(votes)
    means = {grid: exact_mean(v.mean_logprob for v in own) for grid, own in members.items()}
    unknown = {len(own) for grid, own in members.items() if means[grid] is None}
    keys: dict[Grid, Key] = {}
    for grid, own in members.items():
        mean = means[grid]
        keys[grid] = (len(own),) if mean is None or len(own) in unknown else (len(own), mean)
    return rank_by_key(members, keys)


def group_votes(votes: Iterable[Vote]) -> dict[Grid, list[Vote]]:
    """The votes of each distinct grid."""
    members: dict[Grid, list[Vote]] = {}
    for vote in votes:
        members.setdefault(vote.grid, []).append(vote)
    return members


def rank_by_key(members: dict[Grid, list[Vote]], keys: dict[Grid, Key]) -> list[RankedGrid]:
    """The grids of ``keys`` sorted by key, descending; equal keys make a tie set, listed by shape and cells."""
    order = sorted(keys, key=lambda grid: (grid.height, grid.width, grid.cells))
    order.sort(key=lambda grid: keys[grid], reverse=True)
    groups: list[RankedGrid] = []
    tie = -1
    last: Hashable = None
    for grid in order:
        if keys[grid] != last:
            tie, last = tie + 1, keys[grid]
        own = members[grid]
        groups.append(RankedGrid(grid, len(own), exact_mean(v.mean_logprob for v in own), tie))
    return groups


def split_ties(groups: Sequence[RankedGrid]) -> list[list[RankedGrid]]:
    """The ranking cut into its tie sets, best first; a set of one is no tie."""
    sets: list[list[RankedGrid]] = []
    for group in groups:
        if not sets or sets[-1][0].tie != group.tie:
            sets.append([])
        sets[-1].append(group)
    return sets


def top_k_probability(ahead: int, tied: int, k: int) -> float:
    """The chance of a place in the best k of a random order: ``ahead`` stand before, ``tied`` others are equal."""
    return min(max((k - ahead) / (tied + 1), 0.0), 1.0)


def probability_in_top(groups: Sequence[RankedGrid], truth: Grid, k: int) -> float:
    """The chance that ``truth`` is among the k best of a ranking, ties in random order; 0 where nobody gave it."""
    ahead = 0
    for group_set in split_ties(groups):
        if any(group.grid == truth for group in group_set):
            return top_k_probability(ahead, len(group_set) - 1, k)
        ahead += len(group_set)
    return 0.0


def vote_k(votes: Sequence[Vote], truth: Grid, k: int) -> float:
    """1 if the exact grid is among the k best-ranked distinct grids, a fraction where a tie decides, else 0."""
    return probability_in_top(rank_votes(votes), truth, k)


def choose_attempts(groups: Sequence[RankedGrid], stream: Stream, k: int = 2) -> list[Grid]:
    """The best k grids of a ranking, fewer where it has fewer; ties are drawn from ``stream``."""
    chosen: list[Grid] = []
    for group_set in split_ties(groups):
        room = k - len(chosen)
        if room <= 0:
            break
        # A set of one draws nothing, so that the stream serves real ties only.
        drawn = group_set if len(group_set) == 1 else stream.sample(group_set, min(room, len(group_set)))
        chosen.extend(group.grid for group in drawn)
    return chosen


def attempts(votes: Sequence[Vote], stream: Stream, k: int = 2) -> list[Grid]:
    """The k attempts of a submission: the best-ranked distinct grids, ties drawn from ``stream``."""
    return choose_attempts(rank_votes(votes), stream, k)


def exact_mean(values: Iterable[float | None]) -> float | None:
    """The mean of finite numbers, independent of their order; None where one is unknown or none is given."""
    known: list[float] = []
    for value in values:
        if value is None or not math.isfinite(value):
            return None
        known.append(value)
    return math.fsum(known) / len(known) if known else None

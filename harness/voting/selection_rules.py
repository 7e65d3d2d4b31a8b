"""Selection rules by name: ways to rank the distinct grids of a test output, of which the vote is the default."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.core.errors import ConfigError
from harness.core.grid import Grid
from harness.voting.ranking import Key, RankedGrid, Vote, exact_mean, group_votes, rank_by_key, rank_votes

NOMINEES = 3
"""Number of grids that each view nominates under the rule ``marc``."""

_LAST: Key = (-math.inf,)


@dataclass(frozen=True, slots=True)
class Rule:
    """A named way to rank grids."""

    name: str
    rank: Callable[[Sequence[Vote]], list[RankedGrid]]
    needs_logprobs: bool = False
    """Whether it ranks by ``Vote.sum_logprob``."""
    needs_views: bool = False
    """Whether it ranks by ``Vote.view``."""


def rank_by_probability(votes: Sequence[Vote]) -> list[RankedGrid]:
    """Rank by the sum of the answers' probabilities, exp(sum_logprob).

    Grids with an unknown log-probability come last, tied.
    """
    votes_by_grid = group_votes(votes)
    keys = {}
    for grid, group in votes_by_grid.items():
        total = _log_sum_exp([v.sum_logprob for v in group])
        keys[grid] = _LAST if total is None else (total,)
    return rank_by_key(votes_by_grid, keys)


def rank_by_first_sample(votes: Sequence[Vote]) -> list[RankedGrid]:
    """Rank by the lowest sample index of a grid's votes: the first prediction wins, however many agree."""
    votes_by_grid = group_votes(votes)
    return rank_by_key(votes_by_grid, {grid: (-min(v.sample for v in group),) for grid, group in votes_by_grid.items()})


def rank_by_views(votes: Sequence[Vote]) -> list[RankedGrid]:
    """Rank by the hierarchical vote of MARC (Akyürek et al. 2024, arXiv 2411.07279).

    Each view (symmetry of the prompt) nominates its three most frequent grids, and all that tie with the third. Then
    each nomination is one vote, and the untransformed view breaks ties. Grids that no view nominates are not ranked.
    MARC also fills up views with fewer than three grids by row-wise and column-wise majorities; this is left out, as
    no prediction consists of such a grid.
    """
    votes_by_grid = group_votes(votes)
    counts: dict[str, Counter[Grid]] = {}
    for vote in votes:
        counts.setdefault(vote.view, Counter())[vote.grid] += 1
    nominations: Counter[Grid] = Counter()
    for counter in counts.values():
        threshold = sorted(counter.values(), reverse=True)[:NOMINEES][-1]
        nominations.update(grid for grid, count in counter.items() if count >= threshold)
    identity = counts.get("identity", Counter[Grid]())
    return rank_by_key(votes_by_grid, {grid: (count, identity[grid]) for grid, count in nominations.items()})


def rank_by_count_minus_nll(votes: Sequence[Vote]) -> list[RankedGrid]:
    """Rank by count minus the mean negative log-likelihood of the answers that gave the grid.

    Grids with an unknown log-likelihood come last, tied. The rule of NVARC differs: it scores every grid under the
    same views, while this mean is over the views that gave the grid.
    """
    votes_by_grid = group_votes(votes)
    keys = {}
    for grid, group in votes_by_grid.items():
        mean = exact_mean(v.sum_logprob for v in group)
        keys[grid] = _LAST if mean is None else (len(group) + mean,)
    return rank_by_key(votes_by_grid, keys)


RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule("vote", rank_votes),
        Rule("logprob", rank_by_probability, needs_logprobs=True),
        Rule("first", rank_by_first_sample),
        Rule("marc", rank_by_views, needs_views=True),
        Rule("count-nll", rank_by_count_minus_nll, needs_logprobs=True),
    )
}
"""All selection rules by name."""


def get_rule(name: str) -> Rule:
    """Return the rule with this name.

    Raises:
        ConfigError: no rule has this name.
    """
    if name not in RULES:
        raise ConfigError(f"there is no selection rule {name!r}; choose one of {', '.join(RULES)}")
    return RULES[name]


def _log_sum_exp(logs: Sequence[float | None]) -> float | None:
    """Return log(sum(exp(logs))); None if one of them is unknown."""
    known = [log for log in logs if log is not None and math.isfinite(log)]
    if len(known) < len(logs):
        return None
    # Scaled by the largest, so that probabilities below the range of floats still compare.
    top = max(known)
    return top + math.log(math.fsum(math.exp(log - top) for log in known))

"""Selection rules by name: other ways than the vote to rank the distinct grids of one test output."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.core.errors import ConfigError
from harness.core.grid import Grid
from harness.voting.ranking import Key, RankedGrid, Vote, exact_mean, group_votes, rank_by_key, rank_votes

NOMINEES = 3
"""Grids that each view sends to the final vote of the hierarchical rule, as in MARC."""

_LAST: Key = (-math.inf,)


@dataclass(frozen=True, slots=True)
class Rule:
    """A named way to rank grids."""

    name: str
    summary: str
    rank: Callable[[Sequence[Vote]], list[RankedGrid]]
    needs_logprobs: bool = False
    """Whether a vote without ``sum_logprob`` has no score."""
    needs_views: bool = False
    """Whether it asks under which view a vote was given."""


def by_logprob(votes: Sequence[Vote]) -> list[RankedGrid]:
    """By the sum of the answers' probabilities exp(sum_logprob); grids with an unknown one come last, tied."""
    members = group_votes(votes)
    keys = {}
    for grid, own in members.items():
        total = _log_sum([v.sum_logprob for v in own])
        keys[grid] = _LAST if total is None else (total,)
    return rank_by_key(members, keys)


def by_first(votes: Sequence[Vote]) -> list[RankedGrid]:
    """By the place of the first prediction that gave the grid (``sample``): no vote at all."""
    members = group_votes(votes)
    return rank_by_key(members, {grid: (-min(v.sample for v in own),) for grid, own in members.items()})


def by_view(votes: Sequence[Vote]) -> list[RankedGrid]:
    """The hierarchical vote of MARC (Akyürek et al. 2024, arXiv 2411.07279).

    Each view (the symmetry that was inverted) nominates its three most frequent grids, all that tie with
    the third included; then each nomination is one vote, and the untransformed view decides ties. MARC's
    row-wise and column-wise majority grids, which fill up views with fewer than three grids, are left out:
    no prediction gave them. Grids that no view nominates are not ranked.
    """
    members = group_votes(votes)
    counts: dict[str, Counter[Grid]] = {}
    for vote in votes:
        counts.setdefault(vote.view, Counter())[vote.grid] += 1
    nominations: Counter[Grid] = Counter()
    for counter in counts.values():
        floor = sorted(counter.values(), reverse=True)[:NOMINEES][-1]
        nominations.update(grid for grid, count in counter.items() if count >= floor)
    identity = counts.get("identity", Counter[Grid]())
    return rank_by_key(members, {grid: (seen, identity[grid]) for grid, seen in nominations.items()})


def by_count_minus_nll(votes: Sequence[Vote]) -> list[RankedGrid]:
    """By count minus the group's mean negative log-likelihood of a whole answer.

    Grids with an unknown log-likelihood come last, tied. The mean is over the views that gave the grid; NVARC's rule,
    which this is not, scores every grid under the same views.
    """
    members = group_votes(votes)
    keys = {}
    for grid, own in members.items():
        mean = exact_mean(v.sum_logprob for v in own)
        keys[grid] = _LAST if mean is None else (len(own) + mean,)
    return rank_by_key(members, keys)


RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule("vote", "count, then mean log-probability a token", rank_votes),
        Rule("logprob", "sum of the answers' probabilities", by_logprob, needs_logprobs=True),
        Rule("first", "the order of sampling", by_first),
        Rule(
            "marc", "each symmetry nominates its three best, then a vote of the symmetries", by_view, needs_views=True
        ),
        Rule("count-nll", "count minus mean negative log-likelihood", by_count_minus_nll, needs_logprobs=True),
    )
}
"""Every selection rule; ``vote`` is the default."""


def get_rule(name: str) -> Rule:
    """The rule of that name.

    Raises:
        ConfigError: there is no such rule.
    """
    if name not in RULES:
        raise ConfigError(f"there is no selection rule {name!r}; choose one of {', '.join(RULES)}")
    return RULES[name]


def _log_sum(logs: Sequence[float | None]) -> float | None:
    known = [log for log in logs if log is not None and math.isfinite(log)]
    if len(known) < len(logs):
        return None
    # Scaled by the largest, so that answers of very small probability still compare.
    top = max(known)
    return top + math.log(math.fsum(math.exp(log - top) for log in known))

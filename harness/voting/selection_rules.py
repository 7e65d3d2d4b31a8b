"""Selection rules by name: ways to rank the distinct grids of a test output, of which the vote is the default."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.core.errors import ConfigError
from harness.core.grid import Grid
from harness.voting.ranking import Key, RankedGrid, Vote, exact_mean, group_votes, rank_by_key, rank_votes

VOTE = "vote"
"""The name of the default rule."""

NOMINEES = 3
"""Number of grids that each view nominates under the rule ``marc``."""

_LAST: Key = (-math.inf,)

GridRescores = Mapping[Grid, Sequence[float]]
"""For each rescored grid of a test output, its log-probability under the fixed views, in one order for all grids."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A named way to rank grids."""

    name: str
    rank_by_votes: Callable[[Sequence[Vote]], list[RankedGrid]] = rank_votes
    rank_by_rescores: Callable[[Sequence[Vote], GridRescores, bool], list[RankedGrid]] | None = None
    """Used instead of ``rank_by_votes`` by a rule that needs rescores."""
    needs_logprobs: bool = False
    """Whether it ranks by ``Vote.sum_logprob``."""
    needs_views: bool = False
    """Whether it ranks by ``Vote.view``."""

    @property
    def needs_rescores(self) -> bool:
        """Return whether it ranks by log-probabilities of every grid under the same views (``bench rescore``)."""
        return self.rank_by_rescores is not None

    def rank(
        self, votes: Sequence[Vote], rescores: GridRescores | None = None, limited: bool = False
    ) -> list[RankedGrid]:
        """Return the distinct grids of a test output, best first.

        Args:
            rescores: for a rule that needs them; others ignore them.
            limited: whether only the best grids by vote were rescored on purpose (``--top``). The others then come
                last, tied.

        Raises:
            ConfigError: the rule needs rescores and a grid has none, unless ``limited``; or they differ in number.
        """
        if self.rank_by_rescores is None:
            return self.rank_by_votes(votes)
        return self.rank_by_rescores(votes, rescores or {}, limited)


def rank_by_probability(votes: Sequence[Vote]) -> list[RankedGrid]:
    """Rank by the sum over views of the answers' probabilities, exp(sum_logprob).

    Of several answers of one view with the same grid the likeliest counts: they are no further evidence, however often
    the view was drawn. Grids with an unknown log-probability come last, tied.
    """
    votes_by_grid = group_votes(votes)
    keys = {}
    for grid, group in votes_by_grid.items():
        total = _log_sum_exp(list(_likeliest_by_view(group).values()))
        keys[grid] = _LAST if total is None else (total,)
    return rank_by_key(votes_by_grid, keys)


def rank_by_first_sample(votes: Sequence[Vote]) -> list[RankedGrid]:
    """Rank by the lowest sample index of a grid's votes: the first prediction wins, however many agree.

    Of the grids of one enumerated view, and of one sample of several members of a pool, the likeliest is first; those
    with an unknown log-probability come after the others, tied.
    """
    votes_by_grid = group_votes(votes)
    keys: dict[Grid, Key] = {}
    for grid, group in votes_by_grid.items():
        keys[grid] = max((-vote.sample, -math.inf if vote.sum_logprob is None else vote.sum_logprob) for vote in group)
    return rank_by_key(votes_by_grid, keys)


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

    Grids with an unknown log-likelihood come last, tied. The mean is over the views that gave the grid only, so that a
    grid is not judged by the views under which it is unlikely; ``kgmon`` takes the same views for every grid.
    """
    votes_by_grid = group_votes(votes)
    keys = {}
    for grid, group in votes_by_grid.items():
        mean = exact_mean(v.sum_logprob for v in group)
        keys[grid] = _LAST if mean is None else (len(group) + mean,)
    return rank_by_key(votes_by_grid, keys)


def rank_by_product(votes: Sequence[Vote], rescores: GridRescores, limited: bool) -> list[RankedGrid]:
    """Rank by the product of the probabilities under the fixed views (product of experts, arXiv 2505.07859)."""
    votes_by_grid = group_votes(votes)
    sums = _sums(votes_by_grid, rescores, limited)
    return rank_by_key(votes_by_grid, {grid: _LAST if total is None else (total,) for grid, total in sums.items()})


def rank_by_views_and_rescores(votes: Sequence[Vote], rescores: GridRescores, limited: bool) -> list[RankedGrid]:
    """Rank by the number of views that proposed the grid plus its mean log-probability under the fixed views.

    This is the rule of NVARC (2025), there called ``kgmon``.
    """
    votes_by_grid = group_votes(votes)
    keys = {}
    for grid, total in _sums(votes_by_grid, rescores, limited).items():
        views = len({vote.view_index for vote in votes_by_grid[grid]})
        keys[grid] = _LAST if total is None else (views + total / len(rescores[grid]),)
    return rank_by_key(votes_by_grid, keys)


def unrescored_grids(grids: Iterable[Grid], rescores: GridRescores) -> list[Grid]:
    """Return the grids that were not rescored."""
    return [grid for grid in grids if not rescores.get(grid)]


def _sums(grids: Iterable[Grid], rescores: GridRescores, limited: bool) -> dict[Grid, float | None]:
    """Return the sum of each grid's rescores, None for one that has none; see ``Rule.rank``."""
    grids = list(grids)
    missing = set(unrescored_grids(grids, rescores))
    if missing and not limited:
        raise ConfigError(f"{len(missing)} of {len(grids)} grids were not rescored; run bench rescore")
    counts = {len(rescores[grid]) for grid in grids if grid not in missing}
    if len(counts) > 1:
        raise ConfigError(
            f"grids of one test output were rescored under {' and '.join(map(str, sorted(counts)))} views"
        )
    sums = {grid: None if grid in missing else math.fsum(rescores[grid]) for grid in grids}
    if any(total is not None and math.isnan(total) for total in sums.values()):
        raise ConfigError("a rescored log-probability is not a number")
    return sums


RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule(VOTE, rank_votes),
        Rule("logprob", rank_by_probability, needs_logprobs=True),
        Rule("first", rank_by_first_sample),
        Rule("marc", rank_by_views, needs_views=True),
        Rule("count-nll", rank_by_count_minus_nll, needs_logprobs=True),
        Rule("poe", rank_by_rescores=rank_by_product),
        Rule("kgmon", rank_by_rescores=rank_by_views_and_rescores),
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


def _likeliest_by_view(votes: Sequence[Vote]) -> dict[int, float]:
    """Return the largest log-probability of each view's votes; -inf for a view of which none is known."""
    largest: dict[int, float] = {}
    for vote in votes:
        logprob = -math.inf if vote.sum_logprob is None or not math.isfinite(vote.sum_logprob) else vote.sum_logprob
        largest[vote.view_index] = max(logprob, largest.get(vote.view_index, -math.inf))
    return largest


def _log_sum_exp(logs: Sequence[float]) -> float | None:
    """Return log(sum(exp(logs))); None if one of them is -inf, which is unknown."""
    # Scaled by the largest, so that probabilities below the range of floats still compare.
    top = max(logs)
    return None if min(logs) == -math.inf else top + math.log(math.fsum(math.exp(log - top) for log in logs))

"""Rescores of the candidates of one model, with which the rules poe and kgmon rank them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.voting.ranking import RankedGrid, Vote
from harness.voting.selection_rules import RULES, VOTE, GridRescores, Rule


@dataclass(frozen=True, slots=True)
class RescoreCost:
    """What a scorer computed for the candidates of a run, those of all models together."""

    views: int
    scores: int
    """Number of log-probabilities."""
    n_tokens: int
    """Number of answer tokens that they are of."""


@dataclass(frozen=True, slots=True)
class ModelRescores:
    """What rescoring gave for the candidates of one model (``bench rescore``)."""

    outputs: Mapping[tuple[str, int], GridRescores]
    """By (task id, test index): the rescored grids; those without a value for every view are left out."""
    limited: bool = False
    """Whether only some candidates were rescored for a known reason, such as ``--top``; the others come last."""
    unusable: str | None = None
    """Why there are none, though there is a file of them; None without such a reason."""
    scorer: str | None = None
    """The model that rescored them; None without usable rescores, as for ``cost``."""
    cost: RescoreCost | None = None
    by_vote: frozenset[tuple[str, int]] = frozenset()
    """Test outputs of which a deadline left out candidates; rules that need rescores rank them by the vote."""

    def rank(self, rule: Rule, task: str, index: int, votes: Sequence[Vote]) -> list[RankedGrid]:
        """Rank the candidates of a test output by a rule; see ``Rule.rank``."""
        if rule.needs_rescores and (task, index) in self.by_vote:
            return RULES[VOTE].rank(votes)
        return rule.rank(votes, self.outputs.get((task, index)), self.limited)


NOT_RESCORED = ModelRescores({})

"""Selection rules compared on the same predictions: what each one keeps, loses, and where it ranks the exact grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from harness.core.errors import ConfigError
from harness.core.grid import Grid, Task
from harness.scoring.paired_comparison import PairedComparison, compare_pairs, pairs_with_first
from harness.scoring.prediction_groups import ModelPredictions
from harness.scoring.run_scores import ModelScores, true_outputs
from harness.voting.metrics import OutputScore, average
from harness.voting.ranking import RankedGrid, probability_in_top, split_ties
from harness.voting.selection_rules import RULES, Rule, get_rule

PLACES = ("1", "2", "3", "4", "5-8", "9+", "not ranked", "not found")
"""Where a rule ranks the exact grid; ``not ranked`` is found by sampling, but no candidate of the rule."""

_UP_TO = (1, 2, 3, 4, 8)
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RuleScores:
    """What one rule makes of one model's predictions."""

    rule: Rule
    scores: ModelScores
    """The model's, with vote_1 and vote_2 by this rule."""
    places: Floats
    """The share of each of PLACES, averaged over the outputs of a task, then over tasks; ties in random order."""


def parse_rules(names: str) -> list[Rule]:
    """The rules of a comma-separated list, or ``all``; ``vote``, which the others are held against, comes first.

    Raises:
        ConfigError: an unknown name.
    """
    chosen = list(RULES.values()) if names == "all" else [get_rule(name) for name in names.split(",")]
    return [RULES["vote"], *dict.fromkeys(rule for rule in chosen if rule.name != "vote")]


def unusable_reason(rule: Rule, predictions: ModelPredictions) -> str | None:
    """Why a rule cannot be applied to these predictions; None where it can."""
    if rule.needs_views and not predictions.has_views:
        return "the predictions do not say which view they were asked under"
    votes = (vote for own in predictions.outputs.values() for output in own for vote in output.votes())
    if rule.needs_logprobs and all(vote.sum_logprob is None for vote in votes):
        return "the predictions have no log-probabilities"
    return None


def score_rules(
    predictions: ModelPredictions, scores: ModelScores, tasks: Sequence[Task], rules: Sequence[Rule]
) -> list[RuleScores]:
    """Apply rules to one model's predictions.

    Args:
        scores: what the model scored by the vote; only vote_1 and vote_2 change.

    Raises:
        ConfigError: a rule that ``unusable_reason`` speaks against.
    """
    for rule in rules:
        if reason := unusable_reason(rule, predictions):
            raise ConfigError(f"rule {rule.name} cannot be applied: {reason}")
    truths = true_outputs(tasks)
    return [_score_rule(rule, predictions, scores, truths) for rule in rules]


def _score_rule(
    rule: Rule, predictions: ModelPredictions, scores: ModelScores, truths: Mapping[str, Sequence[Grid]]
) -> RuleScores:
    outputs: dict[str, list[OutputScore]] = {}
    places: list[Floats] = []
    for task, own in predictions.outputs.items():
        ranked = [(rule.rank(output.votes()), truth) for output, truth in zip(own, truths[task], strict=True)]
        outputs[task] = [
            replace(score, vote_1=probability_in_top(groups, truth, 1), vote_2=probability_in_top(groups, truth, 2))
            for score, (groups, truth) in zip(scores.outputs[task], ranked, strict=True)
        ]
        shares = [
            place_shares(groups, truth, truth in output.votes_by_grid)
            for output, (groups, truth) in zip(own, ranked, strict=True)
        ]
        places.append(np.mean(shares, axis=0))
    named = replace(scores, model=rule.name, outputs=outputs, tasks=average(outputs))
    return RuleScores(rule, named, np.mean(places, axis=0))


def place_shares(groups: Sequence[RankedGrid], truth: Grid, found: bool) -> Floats:
    """The chance of each of PLACES for the exact grid of one output, ties in random order."""
    shares = np.zeros(len(PLACES))
    ahead = 0
    for tied in split_ties(groups):
        if any(group.grid == truth for group in tied):
            ranks = np.arange(ahead + 1, ahead + len(tied) + 1)
            np.add.at(shares, np.searchsorted(_UP_TO, ranks), 1 / len(tied))
            return shares
        ahead += len(tied)
    shares[PLACES.index("not ranked" if found else "not found")] = 1.0
    return shares


def compare_rules(found: Mapping[str, Sequence[RuleScores]], seed: int) -> list[PairedComparison]:
    """Each rule against the first (the vote), in vote_2 and vote_1; Holm's correction is over all models and rules.

    Args:
        found: by model, what ``score_rules`` gave.
    """
    named = [
        [replace(own.scores, model=rule_label(model, own.rule, found)) for own in rows] for model, rows in found.items()
    ]
    return compare_pairs([pair for rows in named for pair in pairs_with_first(rows)], seed, ("vote_2", "vote_1"))


def loss_split(scores: ModelScores) -> tuple[float, float, float]:
    """(solved, found but not among the two attempts, not found), which add up to 1."""
    solved, found = (float(scores.tasks.of(name).mean()) for name in ("vote_2", "pass_n"))
    return solved, found - solved, 1 - found


def rule_label(model: str, rule: Rule, found: Mapping[str, object]) -> str:
    return rule.name if len(found) == 1 else f"{model}: {rule.name}"

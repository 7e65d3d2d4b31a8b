"""Selection rules scored on the same predictions: what their two attempts solve, and where they rank the exact grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from harness.core.errors import UnusableRuleError
from harness.core.grid import Grid, Task
from harness.predictions.model_rescores import NOT_RESCORED, ModelRescores
from harness.predictions.pooled_outputs import lacks_logprobs
from harness.predictions.prediction_groups import ModelPredictions
from harness.scoring.model_scores import ModelScores, true_outputs
from harness.scoring.paired_comparison import PairedComparison, compare_pairs, pairs_with_first
from harness.stats.intervals import CONFIDENCE, RESAMPLES
from harness.voting.metrics import OutputScore, average_outputs
from harness.voting.ranking import RankedGrid, probability_in_top, split_ties
from harness.voting.selection_rules import RULES, Rule, get_rule, unrescored_grids

PLACES = ("1", "2", "3", "4", "5-8", "9+", "not ranked", "not found")
"""Where a rule ranks the exact grid. ``not ranked``: it was sampled, but is no candidate of the rule."""

_LAST_RANKS = (1, 2, 3, 4, 8)
"""The last rank of each place of PLACES that begins with a number."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RuleScores:
    """The scores of one model when one rule selects its attempts."""

    rule: Rule
    scores: ModelScores
    """As scored by the vote, with vote_1 and vote_2 by this rule; ``model`` is the rule's name."""
    places: Floats
    """Shape (len(PLACES),): the share of each place, averaged over the outputs of a task, then over tasks."""


def parse_rules(names: str) -> list[Rule]:
    """Return the rules of a comma-separated list, or of ``all``; the vote comes first, as the baseline.

    Raises:
        ConfigError: a name is unknown.
    """
    chosen = list(RULES.values()) if names == "all" else [get_rule(name) for name in names.split(",")]
    return [RULES["vote"], *dict.fromkeys(rule for rule in chosen if rule.name != "vote")]


def unusable_reason(rule: Rule, predictions: ModelPredictions, rescores: ModelRescores = NOT_RESCORED) -> str | None:
    """Return why a rule cannot be applied to these predictions; None if it can."""
    if rule.needs_views and not predictions.has_views:
        return "the predictions do not say which view they were asked under"
    votes = (vote for outputs in predictions.outputs.values() for output in outputs for vote in output.votes())
    if rule.needs_logprobs and {vote.sum_logprob is None for vote in votes} == {True}:
        return "the predictions have no log-probabilities"
    if rule.needs_logprobs and (reason := lacks_logprobs(predictions)) is not None:
        return reason
    return _unrescored_reason(predictions, rescores) if rule.needs_rescores else None


def _unrescored_reason(predictions: ModelPredictions, rescores: ModelRescores) -> str | None:
    """Return which candidates lack rescores that a rule needs; None if none does."""
    if rescores.unusable is not None:
        return rescores.unusable
    if not rescores.outputs:
        return "the candidates were not rescored (bench rescore RUN --server URL)"
    missing = total = 0
    where: list[str] = []
    for task, outputs in predictions.outputs.items():
        for index, output in enumerate(outputs):
            if (task, index) in rescores.by_vote:
                continue
            count = len(unrescored_grids(output.votes_by_grid, rescores.outputs.get((task, index), {})))
            total, missing = total + len(output.votes_by_grid), missing + count
            where += [f"task {task}, test {index}"] if count else []
    if not missing or rescores.limited:
        return None
    return f"{missing} of {total} candidates were not rescored, the first in {where[0]} (bench rescore completes them)"


def score_rules(
    predictions: ModelPredictions,
    scores: ModelScores,
    tasks: Sequence[Task],
    rules: Sequence[Rule],
    rescores: ModelRescores = NOT_RESCORED,
) -> list[RuleScores]:
    """Apply rules to the predictions of one model.

    Args:
        scores: the model's scores by the vote; only vote_1 and vote_2 differ between rules.
        rescores: for rules that need them.

    Raises:
        UnusableRuleError: the predictions lack what a rule needs (see ``unusable_reason``).
    """
    for rule in rules:
        if reason := unusable_reason(rule, predictions, rescores):
            raise UnusableRuleError(f"rule {rule.name} cannot be applied: {reason}")
    truths = true_outputs(tasks)
    return [_score_rule(rule, predictions, scores, truths, rescores) for rule in rules]


def _score_rule(
    rule: Rule,
    predictions: ModelPredictions,
    scores: ModelScores,
    truths: Mapping[str, Sequence[Grid]],
    rescores: ModelRescores,
) -> RuleScores:
    """Score one model with the attempts that a rule selects."""
    output_scores: dict[str, list[OutputScore]] = {}
    task_places: list[Floats] = []
    for task, outputs in predictions.outputs.items():
        rankings = [
            (rescores.rank(rule, task, index, output.votes()), truth)
            for index, (output, truth) in enumerate(zip(outputs, truths[task], strict=True))
        ]
        output_scores[task] = [
            replace(score, vote_1=probability_in_top(ranking, truth, 1), vote_2=probability_in_top(ranking, truth, 2))
            for score, (ranking, truth) in zip(scores.outputs[task], rankings, strict=True)
        ]
        places = [
            place_shares(ranking, truth, truth in output.votes_by_grid)
            for output, (ranking, truth) in zip(outputs, rankings, strict=True)
        ]
        task_places.append(np.mean(places, axis=0))
    by_rule = replace(scores, model=rule.name, outputs=output_scores, tasks=average_outputs(output_scores))
    return RuleScores(rule, by_rule, np.mean(task_places, axis=0))


def place_shares(ranking: Sequence[RankedGrid], truth: Grid, sampled: bool) -> Floats:
    """Return the probability of each of PLACES for the exact grid of one output when ties are broken at random.

    Args:
        ranking: the candidates of a rule, best first.
        truth: the exact grid.
        sampled: whether any prediction is exact.

    Returns:
        Shape (len(PLACES),), which adds up to 1.
    """
    shares = np.zeros(len(PLACES))
    ahead = 0
    for tied in split_ties(ranking):
        if any(candidate.grid == truth for candidate in tied):
            ranks = np.arange(ahead + 1, ahead + len(tied) + 1)
            np.add.at(shares, np.searchsorted(_LAST_RANKS, ranks), 1 / len(tied))
            return shares
        ahead += len(tied)
    shares[PLACES.index("not ranked" if sampled else "not found")] = 1.0
    return shares


def compare_rules(
    rule_scores: Mapping[str, Sequence[RuleScores]],
    seed: int,
    metrics: Sequence[str] = ("vote_2", "vote_1"),
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
) -> list[PairedComparison]:
    """Compare each rule with the first one (the vote), by default in vote_2 and vote_1.

    Holm's correction is over all models and rules.

    Args:
        rule_scores: by model, as ``score_rules`` returns them.
        confidence: of the intervals.
        resamples: number of bootstrap resamples, and of random sign flips.
    """
    labelled = [
        [replace(row.scores, model=rule_label(model, row.rule, rule_scores)) for row in rows]
        for model, rows in rule_scores.items()
    ]
    pairs = [pair for rows in labelled for pair in pairs_with_first(rows)]
    return compare_pairs(pairs, seed, metrics, confidence, resamples)


def loss_split(scores: ModelScores) -> tuple[float, float, float]:
    """Return the shares of tasks (solved by two attempts, sampled but not attempted, never sampled); they add to 1."""
    solved, sampled = (float(scores.tasks.values_of(name).mean()) for name in ("vote_2", "pass_n"))
    return solved, sampled - solved, 1 - sampled


def rule_label(model: str, rule: Rule, models: Mapping[str, object]) -> str:
    """Return the rule's name, with the model's before it if there are several models."""
    return rule.name if len(models) == 1 else f"{model}: {rule.name}"

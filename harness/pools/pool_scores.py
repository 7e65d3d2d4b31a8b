"""Scores of a pool compared with its members: oracle, attempts chosen by each rule, best member."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.candidates.pool_results import ChosenResult, MemberResult, PoolDifference, PoolResult
from harness.core.errors import UnusableRuleError
from harness.predictions.model_rescores import NOT_RESCORED
from harness.predictions.pool_loader import OpenPool
from harness.runs.schemas.results_schema import Metric, Results
from harness.scoring.model_scores import ModelScores, make_results, score_model
from harness.scoring.paired_comparison import PairedComparison, compare_pairs
from harness.scoring.prediction_loader import SavedPredictions
from harness.scoring.rule_scores import parse_rules, score_rules, unusable_reason
from harness.scoring.run_scores import score_by_vote
from harness.stats.intervals import CONFIDENCE, RESAMPLES
from harness.voting.selection_rules import VOTE, Rule, get_rule

_CHOSEN = "chosen by "


@dataclass(frozen=True, slots=True)
class PoolScores:
    """A pool compared with its members."""

    result: PoolResult
    comparisons: list[PairedComparison]
    """Of vote_2: each rule with the best member, then the headline rule with the other members."""
    rows: Results
    """Every row of the table as a model, with all its metrics, for the footnote."""


def compare_with_members(
    saved: SavedPredictions,
    rules: str | None = None,
    headline: str = VOTE,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
) -> PoolScores:
    """Compare the attempts that rules choose from a pool with those of its members.

    Args:
        saved: an opened pool.
        rules: comma-separated names of rules; None or ``all`` takes every rule that the pool allows. The headline
            rule is always among them.
        headline: the rule that is compared with every member.

    Raises:
        ConfigError: a rule is unknown.
        UnusableRuleError: the pool lacks what a rule needs that was named.
        UnknownOutputError: the test output of a task is not known.
    """
    assert saved.pool is not None
    (voted,) = score_by_vote(saved)
    usable, left_out = _usable_rules(saved, rules, headline)
    (predictions,) = saved.predictions
    rescores = saved.rescores.get(predictions.model, NOT_RESCORED)
    by_rule = score_rules(predictions, voted, saved.tasks, usable, rescores)
    chosen = [replace(row.scores, model=_CHOSEN + row.rule.name) for row in by_rule]
    members = member_scores(saved.pool)
    pairs = _member_pairs(chosen, members, headline)
    comparisons = compare_pairs(pairs, saved.seed, ("vote_2",), confidence, resamples)
    every = enumerate([voted, *chosen, *members])
    numbered = [replace(scores, model=str(row), members=voted.members) for row, scores in every]
    rows = make_results(numbered, saved.n, saved.seed, confidence, resamples)
    oracle, *metrics = [model.metrics for model in rows.models.values()]
    result = PoolResult(
        oracle=oracle["pass_n"],
        chosen={rule.name: _chosen_result(m) for rule, m in zip(usable, metrics[: len(usable)], strict=True)},
        left_out=left_out,
        headline=headline,
        best_member=members[0].model,
        members={s.model: _member_result(m) for s, m in zip(members, metrics[len(usable) :], strict=True)},
        differences=[_difference(row) for row in comparisons],
    )
    return PoolScores(result, comparisons, rows)


def _member_pairs(
    chosen: Sequence[ModelScores], members: Sequence[ModelScores], headline: str
) -> list[tuple[ModelScores, ModelScores]]:
    """Return each rule paired with the best member, then the headline rule with every other member."""
    by_headline = next(row for row in chosen if row.model == _CHOSEN + headline)
    return [*((row, members[0]) for row in chosen), *((by_headline, member) for member in members[1:])]


def member_scores(pool: OpenPool) -> list[ModelScores]:
    """Return the scores of every member by the vote over its own predictions, highest vote_2 first.

    Members with an equal vote_2 are sorted by pass_n, vote_1 and name.
    """
    outputs = {task.id: len(task.test) for task in pool.tasks}
    scored = [score_model(m.predictions(outputs), pool.tasks, m.record.views) for m in pool.members]

    def order(scores: ModelScores) -> tuple[float | str, ...]:
        return (*(-round(scores.tasks.values_of(m).mean(), 12) for m in ("vote_2", "pass_n", "vote_1")), scores.model)

    return sorted(scored, key=order)


def _usable_rules(saved: SavedPredictions, names: str | None, headline: str) -> tuple[list[Rule], dict[str, str]]:
    """Return the rules to apply, and the reasons why others are left out."""
    (predictions,) = saved.predictions
    rescores = saved.rescores.get(predictions.model, NOT_RESCORED)
    listed = parse_rules("all" if names is None else names)
    rules = list(dict.fromkeys([*listed, get_rule(headline)]))
    reasons = {rule.name: unusable_reason(rule, predictions, rescores) for rule in rules}
    required = {headline} if names in (None, "all") else {rule.name for rule in rules}
    for name, reason in reasons.items():
        if reason is not None and name in required:
            raise UnusableRuleError(f"rule {name} cannot be applied: {reason}")
    return [rule for rule in rules if reasons[rule.name] is None], {n: r for n, r in reasons.items() if r is not None}


def _chosen_result(metrics: dict[str, Metric]) -> ChosenResult:
    return ChosenResult(vote_1=metrics["vote_1"], vote_2=metrics["vote_2"])


def _member_result(metrics: dict[str, Metric]) -> MemberResult:
    return MemberResult(pass_n=metrics["pass_n"], vote_1=metrics["vote_1"], vote_2=metrics["vote_2"])


def _difference(row: PairedComparison) -> PoolDifference:
    c = row.comparison
    return PoolDifference(
        rule=row.model.removeprefix(_CHOSEN),
        member=row.baseline,
        difference=c.delta,
        low=c.low,
        high=c.high,
        won=list(row.won),
        lost=list(row.lost),
        p=c.p,
        p_holm=c.p_holm,
        verdict=c.verdict,
    )

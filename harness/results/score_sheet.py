"""Scores of saved predictions as ``bench score`` prints them: results, tables and warnings."""

from __future__ import annotations

from dataclasses import dataclass

from harness.candidates.pool_results import ResultsOfPool
from harness.pools.pool_scores import compare_with_members
from harness.predictions.model_rescores import NOT_RESCORED
from harness.predictions.pooled_outputs import POOL
from harness.results.pool_table import pool_table
from harness.results.rule_table import rule_results, rules_text
from harness.results.summary_table import details_text, summary_table
from harness.runs.schemas.results_schema import Results, ResultsWithRules
from harness.scoring.early_stopped_scores import refuse_rules_after_early_stopping
from harness.scoring.model_scores import ModelScores, missing_warning, unreadable_warning
from harness.scoring.prediction_loader import SavedPredictions
from harness.scoring.rule_scores import RuleScores, parse_rules, score_rules
from harness.scoring.run_scores import by_rule, saved_results, score_by_vote, score_usable_rules
from harness.stats.intervals import CONFIDENCE, RESAMPLES
from harness.voting.selection_rules import VOTE


@dataclass(frozen=True, slots=True)
class ScoreSheet:
    """Scores of saved predictions, as data and as text."""

    results: Results
    """A ``ResultsWithRules`` if selection rules were compared, a ``ResultsOfPool`` for a pool."""
    text: str
    """Markdown tables."""
    warnings: list[str]


def score_saved_predictions(
    saved: SavedPredictions,
    rules: str | None = None,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    rule: str | None = None,
) -> ScoreSheet:
    """Score saved predictions, and compare selection rules with the vote if requested.

    Args:
        rules: comma-separated names of selection rules; ``all`` takes every rule that these predictions allow.
        rule: the headline rule, which gives vote_1 and vote_2; None takes the one recorded before sampling, else the
            vote.

    Raises:
        ConfigError: a rule is unknown, or the predictions lack what it needs.
        DataError: a test output of the dataset is not known.
    """
    if rules is not None:
        refuse_rules_after_early_stopping(saved.schedule, "--rules")
    voted = score_by_vote(saved)
    results = saved_results(saved, by_rule(saved, voted, rule), confidence, resamples)
    parts = [summary_table(results), details_text(results)]
    warnings = [*saved.warnings, *missing_warnings(saved), *unreadable_warnings(results)]
    if rules is not None:
        rule_scores, skipped = _score_rules(saved, voted, rules)
        warnings += skipped
        results = ResultsWithRules(**dict(results), rules=rule_results(rule_scores, saved.seed, resamples))
        parts.append(rules_text(rule_scores, saved.seed, confidence, resamples))
    if saved.pool is not None:
        headline = results.models[POOL].rule
        name = VOTE if headline is None else headline.name
        pool = compare_with_members(saved, rules, name, confidence, resamples)
        results = ResultsOfPool(**dict(results), pool=pool.result)
        parts.insert(0, pool_table(pool))
    return ScoreSheet(results, "\n\n".join(parts), warnings)


def missing_warnings(saved: SavedPredictions) -> list[str]:
    """Return a warning for each model that has no prediction for some tasks."""
    return [
        missing_warning(model.model, len(saved.tasks), model.missing).removeprefix(
            f"{model.model}: " if len(saved.predictions) == 1 else ""
        )
        for model in saved.predictions
        if model.missing
    ]


def unreadable_warnings(results: Results) -> list[str]:
    """Return a warning for each model of which no answer could be read as a grid."""
    checked = (unreadable_warning(name, model.made, model.failures) for name, model in results.models.items())
    return [warning for warning in checked if warning is not None]


def _score_rules(
    saved: SavedPredictions, scored: list[ModelScores], rules: str
) -> tuple[dict[str, list[RuleScores]], list[str]]:
    """Apply selection rules to every model.

    Args:
        scored: the scores by the vote.

    Returns:
        The scores of each rule by model, and a warning for each rule of ``all`` that the predictions do not allow.
    """
    if rules == "all":
        rule_scores, left_out = score_usable_rules(saved, scored)
        suffixes = {scores.model: "" if len(scored) == 1 else f" for {scores.model}" for scores in scored}
        return rule_scores, [f"rule {row.rule} is left out{suffixes[row.model]}: {row.reason}" for row in left_out]
    chosen = parse_rules(rules)
    rule_scores = {
        predictions.model: score_rules(
            predictions, scores, saved.tasks, chosen, saved.rescores.get(predictions.model, NOT_RESCORED)
        )
        for predictions, scores in zip(saved.predictions, scored, strict=True)
    }
    return rule_scores, []

"""What ``bench score`` tells of saved predictions: results, tables, and warnings."""

from __future__ import annotations

from dataclasses import dataclass

from harness.core.errors import format_ids
from harness.results.rule_comparison import RuleScores, rule_results, rules_named, rules_text, score_rules, unusable
from harness.results.summary_table import details, summary_table
from harness.runs.schema import Results, ResultsWithRules
from harness.scoring.early_stopped_scores import refuse_other_rules
from harness.scoring.prediction_loader import Saved
from harness.scoring.run_scores import ModelScores, make_results, score_ballots
from harness.stats.intervals import CONFIDENCE, RESAMPLES


@dataclass(frozen=True, slots=True)
class Sheet:
    """Scores of saved predictions as a program and as a person reads them."""

    results: Results
    """With the selection rules (``ResultsWithRules``) where they were asked for."""
    text: str
    warnings: list[str]


def score_saved_predictions(
    saved: Saved, rules: str | None = None, confidence: float = CONFIDENCE, resamples: int = RESAMPLES
) -> Sheet:
    """Score saved predictions.

    Args:
        rules: selection rules to compare with the vote, comma-separated, or ``all`` that these predictions allow.

    Raises:
        ConfigError: an unknown rule, or one that the predictions do not allow.
        DataError: an output of the dataset is not known.
    """
    if rules is not None:
        refuse_other_rules(saved.schedule, "--rules")
    scored = [score_ballots(ballots, saved.tasks, saved.n, saved.schedule) for ballots in saved.ballots]
    results = make_results(scored, saved.n, saved.seed, confidence, resamples)
    results = results.model_copy(update={"cost": saved.costs})
    parts = [summary_table(results), details(results)]
    warnings = list(saved.warnings)
    warnings += [
        f"{'' if len(saved.ballots) == 1 else own.model + ': '}of {len(saved.tasks)} tasks {format_ids(own.missing)} "
        "have no prediction and count as wrong"
        for own in saved.ballots
        if own.missing
    ]
    if rules is not None:
        found, left_out = _apply(saved, scored, rules)
        warnings += left_out
        results = ResultsWithRules(**dict(results), rules=rule_results(found, saved.seed))
        parts.append(rules_text(found, saved.seed))
    return Sheet(results, "\n\n".join(parts), warnings)


def _apply(saved: Saved, scored: list[ModelScores], rules: str) -> tuple[dict[str, list[RuleScores]], list[str]]:
    """The rules applied to every model; of ``all``, those that cannot be are left out with a warning."""
    found, warnings = {}, []
    for ballots, scores in zip(saved.ballots, scored, strict=True):
        chosen = rules_named(rules)
        if rules == "all":
            reasons = {rule.name: unusable(rule, ballots) for rule in chosen}
            of = "" if len(scored) == 1 else f" for {ballots.model}"
            warnings += [f"rule {name} is left out{of}: {reason}" for name, reason in reasons.items() if reason]
            chosen = [rule for rule in chosen if reasons[rule.name] is None]
        found[ballots.model] = score_rules(ballots, scores, saved.tasks, chosen)
    return found, warnings

"""Selection rules compared on the same predictions, as tables and for results.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.results.comparison_table import comparison_table, corrected_together
from harness.results.table_format import markdown_table, percent
from harness.runs.schemas.results_schema import RuleResult
from harness.scoring.paired_comparison import PairedComparison
from harness.scoring.rule_scores import PLACES, RuleScores, compare_rules, loss_split, rule_label
from harness.stats.intervals import CONFIDENCE, RESAMPLES


def rules_text(
    rule_scores: Mapping[str, Sequence[RuleScores]],
    seed: int,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
) -> str:
    """Return three tables: what each rule solves and loses, its rank of the exact grid, its differences to the vote.

    Args:
        rule_scores: by model, as ``score_rules`` returns them.
        seed: of the paired comparisons.
        confidence: of their intervals.
        resamples: number of bootstrap resamples, and of random sign flips.
    """
    rows = [(rule_label(model, row.rule, rule_scores), row) for model, rows in rule_scores.items() for row in rows]
    losses = [
        [label, *map(percent, loss_split(row.scores)), percent(float(row.scores.tasks.values_of("vote_1").mean()))]
        for label, row in rows
    ]
    ranks = [[label, *map(percent, row.places.tolist())] for label, row in rows]
    parts = [
        "Where the two attempts of each rule lose what sampling found (shares of tasks):",
        markdown_table(["rule", "solved (vote_2)", "found, not chosen", "not found", "vote_1"], losses),
        "Rank of the exact grid, ties in random order:",
        markdown_table(["rule", *PLACES], ranks),
    ]
    if differences := compare_rules(rule_scores, seed, confidence=confidence, resamples=resamples):
        parts += [
            f"Differences to the vote in percentage points, {100 * confidence:g} % intervals, Holm-corrected over "
            f"{corrected_together(len(differences))}:",
            comparison_table(differences),
        ]
    return "\n\n".join(parts)


def rule_results(
    rule_scores: Mapping[str, Sequence[RuleScores]], seed: int, resamples: int = RESAMPLES
) -> dict[str, dict[str, RuleResult]]:
    """Return the comparison of rules for results.json, by model and rule.

    Args:
        rule_scores: by model, as ``score_rules`` returns them.
        seed: of the paired comparisons.
        resamples: number of random sign flips.
    """
    compared = compare_rules(rule_scores, seed, resamples=resamples)
    differences = {row.model: row for row in compared if row.metric == "vote_2"}
    return {
        model: {row.rule.name: _result(row, differences.get(rule_label(model, row.rule, rule_scores))) for row in rows}
        for model, rows in rule_scores.items()
    }


def _result(row: RuleScores, difference: PairedComparison | None) -> RuleResult:
    solved, lost, not_found = loss_split(row.scores)
    comparison = None if difference is None else difference.comparison
    return RuleResult(
        vote_1=float(row.scores.tasks.values_of("vote_1").mean()),
        vote_2=solved,
        found_not_chosen=lost,
        not_found=not_found,
        rank=dict(zip(PLACES, row.places.tolist(), strict=True)),
        difference=None if comparison is None else comparison.delta,
        p_holm=None if comparison is None else comparison.p_holm,
        verdict=None if comparison is None else comparison.verdict,
    )

"""Selection rules compared on the same predictions, as tables and for results.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.results.comparison_table import comparison_table
from harness.results.table_format import markdown_table, percent
from harness.runs.schema import RuleResult
from harness.scoring.paired_comparison import PairedComparison
from harness.scoring.rule_scores import PLACES, RuleScores, compare_rules, loss_split, rule_label


def rules_text(found: Mapping[str, Sequence[RuleScores]], seed: int) -> str:
    """The comparison as tables: what each rule keeps and loses, its differences to the vote, the exact grid's rank."""
    rows = [(rule_label(model, own.rule, found), own) for model, owns in found.items() for own in owns]
    loss = markdown_table(
        ["rule", "solved (vote_2)", "found, not chosen", "not found", "vote_1"],
        [
            [name, *map(percent, loss_split(own.scores)), percent(float(own.scores.tasks.of("vote_1").mean()))]
            for name, own in rows
        ],
    )
    ranks = markdown_table(["rule", *PLACES], [[name, *map(percent, own.places.tolist())] for name, own in rows])
    parts = [
        "Where the two attempts of each rule lose what sampling found (shares of tasks):",
        loss,
        "Rank of the exact grid, ties in random order:",
        ranks,
    ]
    if differences := compare_rules(found, seed):
        about = (
            f"Differences to the vote in percentage points, Holm-corrected over these {len(differences)} comparisons:"
        )
        parts += [about, comparison_table(differences)]
    return "\n\n".join(parts)


def rule_results(found: Mapping[str, Sequence[RuleScores]], seed: int) -> dict[str, dict[str, RuleResult]]:
    """The comparison for results.json, by model and rule."""
    differences = {row.model: row for row in compare_rules(found, seed) if row.metric == "vote_2"}
    return {
        model: {own.rule.name: _result(own, differences.get(rule_label(model, own.rule, found))) for own in owns}
        for model, owns in found.items()
    }


def _result(own: RuleScores, difference: PairedComparison | None) -> RuleResult:
    solved, lost, not_found = loss_split(own.scores)
    c = None if difference is None else difference.comparison
    return RuleResult(
        vote_1=float(own.scores.tasks.of("vote_1").mean()),
        vote_2=solved,
        found_not_chosen=lost,
        not_found=not_found,
        rank=dict(zip(PLACES, own.places.tolist(), strict=True)),
        difference=None if c is None else c.delta,
        p_holm=None if c is None else c.p_holm,
        verdict=None if c is None else c.verdict,
    )

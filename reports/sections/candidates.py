"""Write where the exact grid was lost, by selection rule: never proposed, or proposed and ranked 3rd or lower."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from harness.results.comparison_table import comparison_table, corrected_together
from harness.results.table_format import markdown_table, percent, with_interval
from harness.runs.schemas.results_schema import HeadlineRule
from harness.scoring.headline_rule import rule_note
from harness.scoring.paired_comparison import PairedComparison
from harness.scoring.rule_scores import PLACES, RuleScores, compare_rules
from harness.stats.intervals import Interval, intervals
from harness.voting.selection_rules import VOTE
from reports.loading.runs import Section

_LOWER_PLACES = PLACES[2:6]
"""Places below the two attempts; a rule that drops candidates also has the place ``not ranked``."""
_NOT_RANKED = "not ranked"

_ABOUT = (
    "Shares of tasks (each the mean over its test outputs) with intervals over tasks. Ranked 3rd or lower: proposed, "
    "but not among the two attempts, so that a better rule would win it; never proposed: no rule would. The last "
    "columns are the ranks, ties in random order. The rule of the other tables is in bold."
)


def lost_grids(section: Section) -> list[str]:
    """Return, as markdown, where every rule lost the exact grid, and each rule's difference to the vote.

    It is empty for a section whose runs only draw predictions and vote.
    """
    rule_scores = section_rules(section)
    if not rule_scores:
        return []
    headlines = {scores.model: scores.rule for scores in section.scored}
    parts = ["### Where the exact grid was lost", *lost_grids_text(rule_scores, headlines, section.seed)]
    if differences := rule_differences(section):
        parts += [
            "Each rule against the vote on the same candidates, in percentage points, Holm-corrected over "
            f"{corrected_together(len(differences))}. The best of several rules compared on the same tasks is "
            "overrated:",
            comparison_table(differences),
        ]
    if left_out := _left_out(section):
        parts.append("\n".join(f"- {text}" for text in left_out))
    return parts


def lost_grids_text(
    rule_scores: Mapping[str, Sequence[RuleScores]], headlines: Mapping[str, HeadlineRule | None], seed: int
) -> list[str]:
    """Return, as markdown, where every rule lost the exact grid, and how to read it.

    Args:
        rule_scores: by model, as ``score_rules`` returns them.
        headlines: by model, the headline rule; None for the vote by default.
        seed: of the intervals.
    """
    rows = [_row(model, row, headlines[model], seed) for model, ranked in rule_scores.items() for row in ranked]
    header = ["model", "rule", "chosen (vote_2)", "ranked 3rd or lower", "never proposed", *_LOWER_PLACES]
    if dropped := any(_place(row, _NOT_RANKED) > 0 for ranked in rule_scores.values() for row in ranked):
        header.append(_NOT_RANKED)
    cells = [row if dropped else row[:-1] for row in rows]
    note = rule_note(headlines) or f"vote_1 and vote_2 are by the default rule {VOTE}"
    return [f"{_ABOUT} Here {note}.", markdown_table(header, cells, left=2)]


def _left_out(section: Section) -> list[str]:
    """Return which rules cannot be applied to which models, a sentence for each reason."""
    groups: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    for run in section.runs:
        for row in run.left_out:
            rules, models = groups.setdefault(row.reason, ({}, {}))
            rules[row.rule] = models[row.model if len(section.runs) == 1 else f"{run.name}@{row.model}"] = None
    return [
        f"Left out for {', '.join(models)}: {' and '.join(rules)}, as {reason}."
        for reason, (rules, models) in groups.items()
    ]


def section_rules(section: Section) -> dict[str, list[RuleScores]]:
    """Return the scores of every usable rule by model, for the models of runs with candidates."""
    names = section.models_with_runs()
    return {model: run.rules[name] for model, run, name in names if name in run.rules}


def rule_differences(section: Section) -> list[PairedComparison]:
    """Return each rule's difference to the vote in vote_2, Holm-corrected over all models and rules of a section."""
    return compare_rules(section_rules(section), section.seed, ("vote_2",))


def _row(model: str, row: RuleScores, headline: HeadlineRule | None, seed: int) -> list[str]:
    """Return the cells of a rule, the one that is left out where no rule drops candidates last."""
    name = row.rule.name
    is_headline = name == (VOTE if headline is None else headline.name)
    shares = [with_interval(share) for share in _shares(row, seed)]
    places = [percent(_place(row, place)) for place in (*_LOWER_PLACES, _NOT_RANKED)]
    return [model, f"**{name}**" if is_headline else name, *shares, *places]


def _shares(row: RuleScores, seed: int) -> Sequence[Interval]:
    """Return the shares of tasks that a rule chose, ranked 3rd or lower, and never proposed, with intervals."""
    tasks = row.scores.tasks
    chosen, proposed = tasks.values_of("vote_2"), tasks.values_of("pass_n")
    # Rounding must not take a share out of [0, 1].
    rows = np.clip(np.stack([chosen, proposed - chosen, 1 - proposed]), 0, 1)
    return intervals(rows, tasks.denominator, seed)


def _place(row: RuleScores, place: str) -> float:
    return float(row.places[PLACES.index(place)])

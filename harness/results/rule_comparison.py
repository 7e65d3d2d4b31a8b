"""Selection rules compared on the same predictions: what each one keeps, loses, and where it ranks the exact grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from harness.core.errors import ConfigError
from harness.core.grid import Grid, Task
from harness.results.comparison_table import comparison_table
from harness.results.table_format import markdown_table, percent
from harness.runs.schema import RuleResult
from harness.scoring.paired_comparison import Paired, against_first, compare_pairs
from harness.scoring.prediction_groups import Ballots
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


def rules_named(names: str) -> list[Rule]:
    """The rules of a comma-separated list, or ``all``; ``vote``, which the others are held against, comes first.

    Raises:
        ConfigError: an unknown name.
    """
    chosen = list(RULES.values()) if names == "all" else [get_rule(name) for name in names.split(",")]
    return [RULES["vote"], *dict.fromkeys(rule for rule in chosen if rule.name != "vote")]


def unusable(rule: Rule, ballots: Ballots) -> str | None:
    """Why a rule cannot be applied to these predictions; None where it can."""
    if rule.needs_views and not ballots.has_views:
        return "the predictions do not say which view they were asked under"
    votes = (vote for own in ballots.outputs.values() for ballot in own for vote in ballot.votes())
    if rule.needs_logprobs and all(vote.sum_logprob is None for vote in votes):
        return "the predictions have no log-probabilities"
    return None


def score_rules(
    ballots: Ballots, scores: ModelScores, tasks: Sequence[Task], rules: Sequence[Rule]
) -> list[RuleScores]:
    """Apply rules to one model's predictions.

    Args:
        scores: what the model scored by the vote; only vote_1 and vote_2 change.

    Raises:
        ConfigError: a rule that ``unusable`` speaks against.
    """
    for rule in rules:
        if reason := unusable(rule, ballots):
            raise ConfigError(f"rule {rule.name} cannot be applied: {reason}")
    truths = true_outputs(tasks)
    return [_score_rule(rule, ballots, scores, truths) for rule in rules]


def _score_rule(rule: Rule, ballots: Ballots, scores: ModelScores, truths: Mapping[str, Sequence[Grid]]) -> RuleScores:
    outputs: dict[str, list[OutputScore]] = {}
    places: list[Floats] = []
    for task, own in ballots.outputs.items():
        ranked = [(rule.rank(ballot.votes()), truth) for ballot, truth in zip(own, truths[task], strict=True)]
        outputs[task] = [
            replace(score, vote_1=probability_in_top(groups, truth, 1), vote_2=probability_in_top(groups, truth, 2))
            for score, (groups, truth) in zip(scores.outputs[task], ranked, strict=True)
        ]
        shares = [
            place_shares(groups, truth, truth in ballot.groups)
            for ballot, (groups, truth) in zip(own, ranked, strict=True)
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


def compare_rules(found: Mapping[str, Sequence[RuleScores]], seed: int) -> list[Paired]:
    """Each rule against the first (the vote), in vote_2 and vote_1; Holm's correction is over all models and rules.

    Args:
        found: by model, what ``score_rules`` gave.
    """
    named = [
        [replace(own.scores, model=_name(model, own.rule, found)) for own in rows] for model, rows in found.items()
    ]
    return compare_pairs([pair for rows in named for pair in against_first(rows)], seed, ("vote_2", "vote_1"))


def rules_text(found: Mapping[str, Sequence[RuleScores]], seed: int) -> str:
    """The comparison as tables: what each rule keeps and loses, its differences to the vote, the exact grid's rank."""
    rows = [(_name(model, own.rule, found), own) for model, owns in found.items() for own in owns]
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
        model: {own.rule.name: _result(own, differences.get(_name(model, own.rule, found))) for own in owns}
        for model, owns in found.items()
    }


def _result(own: RuleScores, difference: Paired | None) -> RuleResult:
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


def loss_split(scores: ModelScores) -> tuple[float, float, float]:
    """(solved, found but not among the two attempts, not found), which add up to 1."""
    solved, found = (float(scores.tasks.of(name).mean()) for name in ("vote_2", "pass_n"))
    return solved, found - solved, 1 - found


def _name(model: str, rule: Rule, found: Mapping[str, object]) -> str:
    return rule.name if len(found) == 1 else f"{model}: {rule.name}"

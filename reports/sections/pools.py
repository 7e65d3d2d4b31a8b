"""Write the section of a pool: its members, and what selection rules choose from their candidates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.candidates.pool_schema import PoolMember
from harness.pools.pool_scores import compare_with_members
from harness.results.pool_table import pool_table
from harness.results.table_format import markdown_table
from harness.scoring.headline_rule import headline_rule
from harness.scoring.prediction_loader import SavedPredictions, open_predictions
from harness.scoring.run_scores import score_by_vote, score_usable_rules
from harness.voting.selection_rules import VOTE
from reports.sections.candidates import lost_grids_text

_DIGITS = 12


def pool_sections(pools: Sequence[Path], rule: str | None, scorer: str | None) -> list[str]:
    """Return the markdown of pools, in their order.

    Args:
        rule: the headline rule, which is compared with every member; None takes the vote.
        scorer: whose rescores the rules that need them use.

    Raises:
        RunError, DataError: a pool is damaged. UnusableRuleError: it lacks what the rule needs.
    """
    parts = []
    for path in pools:
        saved = open_predictions(path, scorer=scorer)
        assert saved.pool is not None
        manifest = saved.pool.manifest
        parts.append(f"## Pool {path.resolve().name}: {manifest.dataset}")
        if saved.warnings:
            parts.append("\n".join(f"- {warning}" for warning in saved.warnings))
        parts += [
            pool_table(compare_with_members(saved, headline=rule or VOTE)),
            *_lost_grids(saved, rule),
            "### Members",
        ]
        parts.append(_members_table(manifest.members))
        parts.append(
            f"{manifest.candidates:,} candidates; made {manifest.created} by arc-bench {manifest.environment.version}."
        )
    return parts


def _lost_grids(saved: SavedPredictions, rule: str | None) -> list[str]:
    """Return where every rule that the pool's candidates allow lost the exact grid."""
    rule_scores, _ = score_usable_rules(saved, score_by_vote(saved))
    headlines = dict.fromkeys(rule_scores, headline_rule(saved.rule, rule))
    return ["### Where the exact grid was lost", *lost_grids_text(rule_scores, headlines, saved.seed)]


def _members_table(members: Sequence[PoolMember]) -> str:
    """Return a table of where the candidates come from."""
    rows = [[m.name, m.form, m.path, m.view_space[:20], str(m.views), str(m.n), m.digest[:_DIGITS]] for m in members]
    return markdown_table(["member", "form", "path", "views of", "views", "N", "digest"], rows, left=4)

"""Write the section of a pool: its members, and what selection rules choose from their candidates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from harness.candidates.pool_schema import PoolMember
from harness.results.pool_table import pool_table
from harness.results.table_format import markdown_table
from harness.scoring.pool_scores import compare_with_members
from harness.scoring.prediction_loader import open_predictions
from harness.voting.selection_rules import VOTE

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
        parts += [pool_table(compare_with_members(saved, headline=rule or VOTE)), "### Members"]
        parts.append(_members_table(manifest.members))
        parts.append(
            f"{manifest.candidates:,} candidates; made {manifest.created} by arc-bench {manifest.environment.version}."
        )
    return parts


def _members_table(members: Sequence[PoolMember]) -> str:
    """Return a table of where the candidates come from."""
    rows = [[m.name, m.form, m.path, m.view_space[:20], str(m.views), str(m.n), m.digest[:_DIGITS]] for m in members]
    return markdown_table(["member", "form", "path", "views of", "views", "N", "digest"], rows, left=4)

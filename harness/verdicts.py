"""Comparisons as a table and as sentences."""

from __future__ import annotations

from collections.abc import Sequence

from harness.comparison import Comparison
from harness.pairs import Paired
from harness.tables import difference_interval, markdown_table, p_value, points

HEADER = ("metric", "model", "against", "difference", "interval", "won / lost", "p (Holm)", "resolvable", "verdict")


def comparison_table(found: Sequence[Paired]) -> str:
    """One row a comparison; differences and the smallest resolvable one in percentage points."""
    return markdown_table(HEADER, [_row(row) for row in found], left=3)


def _row(row: Paired) -> list[str]:
    c = row.comparison
    resolvable = "–" if c.resolvable is None else f"{100 * c.resolvable:.1f}"
    tasks = f"{c.won} / {c.lost} of {c.tasks}"
    return [row.metric, row.model, row.baseline, points(c.delta), difference_interval(c), tasks,
            p_value(c.p_holm), resolvable, c.verdict]  # fmt: skip


def sentence(row: Paired) -> str:
    """One comparison in words."""
    c: Comparison = row.comparison
    if c.verdict == "not resolved":
        return f"**{row.model}** against **{row.baseline}**: {points(c.delta)} points of {row.metric}, not resolved"
    return f"**{row.model}** is {c.verdict} than **{row.baseline}** by {abs(100 * c.delta):.1f} points of {row.metric}"

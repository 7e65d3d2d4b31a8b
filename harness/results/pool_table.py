"""The table of a pool: oracle, chosen attempts, best member and the others, and the differences."""

from __future__ import annotations

from harness.pools.pool_scores import PoolScores
from harness.results.comparison_table import comparison_footnote, comparison_table
from harness.results.summary_table import metric_cells, summary_footnote
from harness.results.table_format import markdown_table

_COLUMNS = ("vote_2", "vote_1", "pass_n")
HEADER = ("attempts", "solved (vote_2)", "vote_1", "proposed (pass_n)")


def pool_table(scores: PoolScores) -> str:
    """Return two tables with footnotes: the shares of tasks with intervals, and the paired differences."""
    result = scores.result
    rows = [["oracle: any member proposed it", *metric_cells({"pass_n": result.oracle}, _COLUMNS)]]
    for rule, chosen in result.chosen.items():
        rows.append([f"chosen by {rule}", *metric_cells(dict(chosen), _COLUMNS)])
    for name, member in result.members.items():
        label = f"best member: {name}" if name == result.best_member else f"member: {name}"
        rows.append([label, *metric_cells(dict(member), _COLUMNS)])
    parts = [
        markdown_table(HEADER, rows),
        summary_footnote(scores.rows) + " N counts the distinct views of all members; members choose by the vote.",
        "Differences of the chosen attempts to the best member"
        + (f", and by {result.headline} to each other member:" if len(result.members) > 1 else ":"),
        comparison_table(scores.comparisons),
        comparison_footnote(scores.comparisons),
        "The best member is the one with the highest vote_2 on these same tasks, which favours it: against a member "
        "that was chosen beforehand, the differences would be larger on average.",
    ]
    if result.left_out:
        parts.append("\n".join(["Rules left out:\n", *(f"- {n}: {reason}" for n, reason in result.left_out.items())]))
    return "\n\n".join(parts)

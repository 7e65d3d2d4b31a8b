"""Text of the verdicts of a run with a sequential design (``--until-resolved``)."""

from __future__ import annotations

from harness.core.errors import format_ids
from harness.results.table_format import markdown_table, points
from harness.runs.schemas.sequential_schema import SequentialComparison, SequentialResult
from harness.stats.sequential import verdict_in_points


def sequential_text(result: SequentialResult) -> str:
    """Return the verdicts as a table, with what they are about and which tasks were not reached."""
    head = (
        f"--until-resolved {result.metric}: {result.reached} of {result.declared} tasks were sampled. Verdicts on "
        f"these models against {result.baseline} (not on recipes), valid although the run ended where it did:"
    )
    if not result.comparisons:
        return f"{head} none yet, as no look is complete."
    header = ["model", "verdict", "after tasks", "difference, points", "interval under all looks"]
    rows = [
        [model, verdict_in_points(c.verdict), str(c.tasks), points(c.delta), _interval(c)]
        for model, c in result.comparisons.items()
    ]
    foot = "Where a verdict ended the run the difference is too large on average."
    if result.smaller_than is not None:
        foot += (
            f" Smaller than {100 * result.smaller_than:g} points is said where the interval leaves room for tasks that "
            "are won or lost entirely, and of which none was seen."
        )
    if result.not_reached:
        foot += f" In no figure, as not reached: {format_ids(result.not_reached)}."
    return "\n\n".join([head, markdown_table(header, rows, left=2), foot])


def _interval(comparison: SequentialComparison) -> str:
    """Return the interval in points."""
    if comparison.low is None or comparison.high is None:
        return "none yet"
    return f"[{points(comparison.low)}, {points(comparison.high)}]"

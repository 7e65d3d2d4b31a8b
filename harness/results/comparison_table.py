"""Format paired comparisons as a table, as sentences and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from harness.results.table_format import difference_interval, markdown_table, p_value, points
from harness.scoring.paired_comparison import PairedComparison
from harness.stats.intervals import SMALL_SAMPLE

if TYPE_CHECKING:
    from harness.recipes.recipe_comparison import ComparedRecipes

HEADER = (
    "metric",
    "model",
    "against",
    "difference",
    "interval",
    "won / lost",
    "p",
    "p (Holm)",
    "resolvable",
    "verdict",
)


def comparison_table(comparisons: Sequence[PairedComparison]) -> str:
    """Return a table with one row per comparison; differences are in percentage points."""
    return markdown_table(HEADER, [_row(row) for row in comparisons], left=3)


def _row(row: PairedComparison) -> list[str]:
    c = row.comparison
    resolvable = "–" if c.resolvable is None else f"{100 * c.resolvable:.1f}"
    tasks = f"{c.won} / {c.lost} of {c.tasks}"
    return [row.metric, row.model, row.baseline, points(c.delta), difference_interval(c), tasks,
            p_value(c.p), p_value(c.p_holm), resolvable, c.verdict]  # fmt: skip


def comparison_footnote(comparisons: Sequence[PairedComparison], family: int | None = None) -> str:
    """Return a sentence that explains the columns of ``comparison_table``.

    Args:
        family: the number of comparisons that were corrected together, if more than these.
    """
    small = any(c.comparison.tasks < SMALL_SAMPLE and c.comparison.low is not None for c in comparisons)
    level = f" (with fewer than {SMALL_SAMPLE} tasks at the higher level that Student's t asks for)" if small else ""
    return (
        f"Percentage points, paired by task; intervals by the bootstrap{level}; p by sign flips or McNemar's exact "
        f"test, Holm-corrected over {corrected_together(len(comparisons), family)}; resolvable: the smallest "
        "difference that this many tasks resolve at 80 % power."
    )


def corrected_together(count: int, family: int | None = None) -> str:
    """Return in words which comparisons Holm's correction is over; other tables of a document have their own.

    Args:
        count: the number of comparisons in the table.
        family: the number that was corrected together, if more than these.
    """
    if family is not None and family > count:
        return f"the {family} such comparisons of all datasets here alone"
    return "one comparison" if count == 1 else f"these {count} comparisons alone"


def comparison_text(row: PairedComparison, shown: int | None = None) -> str:
    """Return the verdict of a comparison in words, with the ids of the tasks won and lost.

    Args:
        shown: the most ids to list of each; None lists all.
    """
    needed = row.comparison.tasks_for(row.comparison.delta)
    known = needed is not None and needed > row.comparison.tasks  # no more tasks are no advice
    return verdict_text(row, row.model, f"{needed:,} tasks" if known else None, shown)


def verdict_text(row: PairedComparison | ComparedRecipes, name: str, needed: str | None, shown: int | None) -> str:
    """Return the verdict on what is compared with ``row.baseline``, with the ids of the tasks won and lost.

    Args:
        name: what is compared.
        needed: what resolves a difference of this size; None if it is not known, or not more than there is.
        shown: as in ``comparison_text``.
    """
    c = row.comparison
    head = f"{row.metric}: {name} against {row.baseline}: {c.verdict}, {points(c.delta)} points"
    if not c.differing:
        return f"{head}; no task differs"
    if c.verdict == "not resolved" and needed is not None:
        head += f" (a difference of this size takes about {needed})"
    return f"{head}; wins {task_list(row.won, shown)}; loses {task_list(row.lost, shown)}"


def plan_table(comparisons: Sequence[PairedComparison], difference: float) -> str:
    """Return a table of how many tasks resolve a difference at 80 % power.

    Args:
        comparisons: their paired differences estimate the standard deviation.
        difference: a share, e.g. 0.02 for 2 points.
    """
    rows = []
    for row in comparisons:
        needed = row.comparison.tasks_for(difference)
        alike = "all tasks differ alike" if row.comparison.differing else "no task differs"
        tasks = alike if needed is None else f"{needed:,}"
        rows.append([row.metric, row.model, row.baseline, f"{100 * row.comparison.sd:.1f}", tasks])
    wanted = f"tasks for {100 * difference:g} {'point' if difference == 0.01 else 'points'}"
    header = ["metric", "model", "against", "sd of the paired differences", wanted]
    return markdown_table(header, rows, left=3)


def comparisons_json(comparisons: Sequence[PairedComparison]) -> list[dict[str, object]]:
    """Return the comparisons for another program: their fields, all task ids, and ``tasks_needed``.

    ``tasks_needed`` is the number of tasks that would resolve the observed difference at 80 % power.
    """
    return [_as_json(row) for row in comparisons]


def _as_json(row: PairedComparison) -> dict[str, object]:
    values = asdict(row)
    del values["comparison"]["widest"]  # only gates use it
    return {**values, "tasks_needed": row.comparison.tasks_for(row.comparison.delta)}


def task_list(ids: Sequence[str], shown: int | None) -> str:
    """Return the number of task ids and the first ``shown`` of them."""
    cut = "" if shown is None or len(ids) <= shown else " …"
    return f"{len(ids)}: {', '.join(ids[:shown])}{cut}" if ids else "none"


def comparison_sentence(row: PairedComparison | ComparedRecipes) -> str:
    """Return the verdict of a comparison as a sentence in markdown."""
    c, name = row.comparison, row.model if isinstance(row, PairedComparison) else row.recipe
    if c.verdict == "not resolved":
        return f"**{name}** against **{row.baseline}**: {points(c.delta)} points of {row.metric}, not resolved"
    return f"**{name}** is {c.verdict} than **{row.baseline}** by {abs(100 * c.delta):.1f} points of {row.metric}"

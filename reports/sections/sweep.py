"""Write the section of a sweep: the verdict in words, its table, and the differences to the first mixture."""

from __future__ import annotations

import numpy as np

from harness.results.comparison_table import comparison_footnote, comparison_sentence, comparison_table
from harness.results.recipe_table import (
    recipe_footnote,
    recipe_table,
    shares_footnote,
    shares_table,
)
from harness.results.summary_table import WILSON_MARK, metric_cells
from harness.results.table_format import markdown_table, percent
from harness.scoring.paired_comparison import HEADLINE
from reports.loading.sweep import SweepTable


def sweep_section(table: SweepTable) -> list[str]:
    """Return markdown: the verdict, the table of mixtures, the spread over training seeds, and the differences."""
    record, section = table.record, table.section
    first = record.rows[0].label
    counts = sorted({len(row.models) for row in record.rows})
    number = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    runs = "one training run" if counts == [1] else f"{number} training runs"
    rows = [[scores.model, *metric_cells(row)] for scores, row in zip(table.mixtures, table.intervals, strict=True)]
    parts = [
        f"## {section.dataset}: {len(record.rows)} mixtures, {runs} each",
        f"Each mixture compared with **{first}** by vote_2 (two attempts per test output): {_verdict(table)}.",
        markdown_table([record.header, *HEADLINE], rows),
        _footnote(table),
    ]
    if counts[-1] > 1:
        parts += ["### Training seeds", _spread(table)]
    if table.recipes:
        parts += [f"### Differences to {first}", recipe_table(table.recipes)]
        parts.append(recipe_footnote(table.recipes, table.family_size))
        parts += [shares_table(table.recipes), shares_footnote()]
    elif table.pairs:
        parts += [f"### Differences to {first}", comparison_table(table.pairs)]
        parts.append(comparison_footnote(table.pairs, table.family_size))
    return parts


def _verdict(table: SweepTable) -> str:
    """Return the resolved differences to the first mixture by vote_2, and of what they are verdicts."""
    first = table.record.rows[0].label
    if table.recipes:
        resolved = [
            comparison_sentence(row)
            for row in table.recipes
            if row.metric == "vote_2" and row.comparison.verdict != "not resolved"
        ]
        nothing = f"no difference from {first} is resolved: the choice of tasks and training runs could explain each"
        return "; ".join(resolved) or nothing
    resolved = [
        comparison_sentence(row)
        for row in table.pairs
        if row.metric == "vote_2" and row.comparison.verdict != "not resolved"
    ]
    verdict = "; ".join(resolved) or f"no difference from {first} is resolved: the choice of tasks could explain each"
    return f"{verdict}. These are verdicts on single adapters: nothing is known about other training runs of a mixture"


def _footnote(table: SweepTable) -> str:
    """Return what the intervals do and do not cover."""
    section = table.section
    head = (
        f"N = {section.n} predictions per test output, {len(section.tasks)} tasks; brackets: 95 % intervals over tasks "
    )
    if table.recipes_known:
        text = (
            f"{head}and training runs (Student's t), for other tasks of this kind and other training runs of a mixture."
        )
        if any(interval.method != "t" for row in table.intervals for interval in row.values()):
            text += " Where the interval over tasks alone (BCa bootstrap or Wilson's) reaches further, they include it."
        return text
    text = f"{head}(BCa bootstrap, seed {section.seed}; {WILSON_MARK} Wilson's). They cover the choice of tasks, "
    if all(len(row.models) == 1 for row in table.record.rows):
        return text + "not the variation between training runs: each row is one training run."
    return text + "not the variation between training runs, as a mixture has one training run only."


def _spread(table: SweepTable) -> str:
    """Return a table of the lowest and highest training seed and the standard deviation over seeds, in points."""
    scores = {scores.model: scores.tasks for scores in table.section.scored}
    cells = []
    for row in table.record.rows:
        means = np.array([[scores[name].values_of(metric).mean() for metric in HEADLINE] for name in row.models])
        low, high = means.min(axis=0), means.max(axis=0)
        sds = [f"{100 * sd:.1f}" for sd in means.std(axis=0, ddof=1)] if len(means) > 1 else ["–"] * len(HEADLINE)
        cells.append(
            [row.label] + [f"{percent(a)} – {percent(b)}, sd {sd}" for a, b, sd in zip(low, high, sds, strict=True)]
        )
    return markdown_table([table.record.header, *HEADLINE], cells)

"""Write the section of a sweep: the verdict in words, its table, and the differences to the first mixture."""

from __future__ import annotations

import numpy as np

from harness.results.comparison_table import comparison_footnote, comparison_sentence, comparison_table
from harness.results.summary_table import WILSON_MARK, metric_cells
from harness.results.table_format import markdown_table, percent
from harness.scoring.paired_comparison import HEADLINE
from reports.loading.sweep import SweepTable


def sweep_section(table: SweepTable) -> list[str]:
    """Return markdown: the verdict, the table of mixtures, the spread over training seeds, and the differences."""
    record, section = table.record, table.section
    first = record.rows[0].label
    resolved = [
        comparison_sentence(row)
        for row in table.pairs
        if row.metric == "vote_2" and row.comparison.verdict != "not resolved"
    ]
    verdict = "; ".join(resolved) or f"no mixture differs from {first} by more than chance explains"
    rows = [[scores.model, *metric_cells(row)] for scores, row in zip(table.mixtures, table.intervals, strict=True)]
    seeds = len(record.seeds)
    parts = [
        f"## {section.dataset}: {len(record.rows)} mixtures, "
        f"{'one training run' if seeds == 1 else f'{seeds} training runs'} each",
        f"Each mixture compared with **{first}** by vote_2 (two attempts per test output): {verdict}.",
        markdown_table([record.header, *HEADLINE], rows),
        _footnote(table),
    ]
    if seeds > 1:
        parts += ["### Training seeds", _spread(table)]
    if table.pairs:
        parts += [f"### Differences to {first}", comparison_table(table.pairs)]
        parts.append(comparison_footnote(table.pairs, table.family_size))
    return parts


def _footnote(table: SweepTable) -> str:
    """Return what the intervals do and do not cover."""
    section = table.section
    text = (
        f"N = {section.n} predictions per test output, {len(section.tasks)} tasks; brackets: 95 % intervals over tasks "
        f"(BCa bootstrap, seed {section.seed}; {WILSON_MARK} Wilson's). They cover the choice of tasks, "
    )
    if len(table.record.seeds) == 1:
        return text + "not the variation between training runs: each row is one training run."
    return text + "not the variation between training runs, for which see the spread over seeds."


def _spread(table: SweepTable) -> str:
    """Return a table of the lowest and highest training seed and the standard deviation over seeds, in points."""
    scores = {scores.model: scores.tasks for scores in table.section.scored}
    cells = []
    for row in table.record.rows:
        means = np.array([[scores[name].values_of(metric).mean() for metric in HEADLINE] for name in row.models])
        low, high, sd = means.min(axis=0), means.max(axis=0), means.std(axis=0, ddof=1)
        cells.append(
            [row.label]
            + [f"{percent(a)} – {percent(b)}, sd {100 * s:.1f}" for a, b, s in zip(low, high, sd, strict=True)]
        )
    return markdown_table([table.record.header, *HEADLINE], cells)

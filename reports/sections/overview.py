"""What stands over several datasets or runs: the overview, a sweep's table, and published figures beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from harness.results.summary_table import WILSON_MARK
from harness.results.table_format import markdown_table, with_interval
from harness.runs.schema import SweepRecord
from harness.scoring.paired_comparison import correct_together
from harness.scoring.run_scores import score_intervals
from reports.loading.runs import Section, all_models
from reports.sections.reference import Row, load_reference, reference_parts
from reports.sections.sweep import compare_mixtures, mean_over_seeds, sweep_parts


def overview(sections: Sequence[Section], metric: str) -> str:
    """One metric of every model on every dataset."""
    models = all_models(sections)
    rows = []
    marked = ""
    for section in sections:
        results = section.results.models
        found = [results[m].metrics.get(metric) if m in results else None for m in models]
        marks = [WILSON_MARK if cell and cell.method == "wilson" else "" for cell in found]
        marked = marked or "".join(marks)
        cells = ["–" if cell is None else with_interval(cell, mark) for cell, mark in zip(found, marks, strict=True)]
        rows.append([section.heading, str(len(section.tasks)), *cells])
    note = f" ({WILSON_MARK} Wilson's interval)" if marked else ""
    return f"{metric}{note}:\n\n" + markdown_table(["dataset", "tasks", *models], rows)


def sweep_tables(sections: Sequence[Section], record: SweepRecord) -> list[str]:
    """The table of the sweep, for each dataset that all its adapters were benched on.

    Raises:
        RunError: there is none.
    """
    whole = [section for section in sections if _has_sweep(section, record)]
    chosen = whole or sections[:1]
    compared = correct_together([compare_mixtures(section, record) for section in chosen])
    family = sum(map(len, compared))
    return [
        part
        for section, rows in zip(chosen, compared, strict=True)
        for part in sweep_parts(section, record, rows, family)
    ]


def beside_published(sections: Sequence[Section], name: str, record: SweepRecord | None) -> list[str]:
    """Each dataset's rows beside the published ones; with a sweep its mixtures, each the mean of its training seeds.

    Raises:
        ConfigError: there is no reference of that name.
    """
    reference = load_reference(name)
    parts = ["## Beside published figures"]
    for section in sections:
        parts += [f"Rows of this report: `{section.heading}`."] if len(sections) > 1 else []
        parts += reference_parts(reference, _rows(section, record))
    return parts


def _has_sweep(section: Section, record: SweepRecord) -> bool:
    return {model for row in record.rows for model in row.models} <= {scores.model for scores in section.scored}


def _rows(section: Section, record: SweepRecord | None) -> list[Row]:
    models: list[Row] = [(model, result.metrics) for model, result in section.results.models.items()]
    if record is None or not _has_sweep(section, record):
        return models
    known = {scores.model: scores for scores in section.scored}
    means = [
        replace(known[row.models[0]], model=row.label, tasks=mean_over_seeds([known[m].tasks for m in row.models]))
        for row in record.rows
    ]
    found = score_intervals(means, section.seed)
    trained = {model for row in record.rows for model in row.models}
    mixtures: list[Row] = [(mean.model, figures) for mean, figures in zip(means, found, strict=True)]
    return mixtures + [row for row in models if row[0] not in trained]

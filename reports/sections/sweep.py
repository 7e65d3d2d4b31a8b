"""The table of a sweep: one row a mixture, every figure with its interval, each row against the first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from harness.core.errors import RunError
from harness.results.comparison_table import comparison_footnote, comparison_table, sentence
from harness.results.summary_table import WILSON_MARK
from harness.results.table_format import markdown_table, percent, with_interval
from harness.runs.schema import SweepRecord, SweepRow
from harness.scoring.paired_comparison import HEADLINE, Paired, against_first, compare_pairs
from harness.scoring.run_scores import ModelScores, score_intervals
from harness.stats.intervals import Interval
from harness.voting.metrics import TaskScores
from reports.loading.runs import Section


def read_sweep(path: Path) -> SweepRecord:
    """The record that ``bench sweep`` left.

    Raises:
        RunError: it is missing or broken.
    """
    try:
        return SweepRecord.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise RunError(f"{path}: not the record of a sweep: {' '.join(str(error).split())[:300]}") from None


def compare_mixtures(section: Section, record: SweepRecord) -> list[Paired]:
    """Compare each mixture with the first, Holm-corrected over this section alone.

    Raises:
        RunError: an adapter of the sweep is not in the runs.
    """
    rows = [_row_scores(section, row) for row in record.rows]
    return compare_pairs(against_first(rows), section.seed) if len(rows) > 1 else []


def sweep_parts(section: Section, record: SweepRecord, found: Sequence[Paired], family: int) -> list[str]:
    """Markdown: the verdict in words, the table, the differences to the first row, and the spread over seeds.

    Args:
        found: what ``compare_mixtures`` gives, corrected over all sections.
        family: how many comparisons were corrected together.
    """
    rows = [_row_scores(section, row) for row in record.rows]
    told = [sentence(row) for row in found if row.metric == "vote_2" and row.comparison.verdict != "not resolved"]
    first = record.rows[0].label
    verdict = "; ".join(told) if told else f"no mixture differs from {first} by more than chance explains"
    parts = [
        f"## {section.dataset}: {len(record.rows)} mixtures, {_seeds(record)} each",
        f"Each mixture against **{first}**, two attempts an output: {verdict}.",
        _table(rows, record, section.seed),
        _about(section, record),
    ]
    if len(record.seeds) > 1:
        parts += ["### Training seeds", _spread(section, record)]
    if found:
        parts += [f"### Differences to {first}", comparison_table(found), comparison_footnote(found, family)]
    return parts


def _seeds(record: SweepRecord) -> str:
    return "one training run" if len(record.seeds) == 1 else f"{len(record.seeds)} training runs"


def _row_scores(section: Section, row: SweepRow) -> ModelScores:
    """A mixture as one model: each task's values are means over the training seeds."""
    known = {scores.model: scores for scores in section.scored}
    if missing := [name for name in row.models if name not in known]:
        raise RunError(f"the sweep's {', '.join(missing)} is in none of the runs; they have: {', '.join(known)}")
    scored = [known[name] for name in row.models]
    return replace(scored[0], model=row.label, tasks=mean_over_seeds([scores.tasks for scores in scored]))


def mean_over_seeds(tasks: Sequence[TaskScores]) -> TaskScores:
    """The mean of several models' scores, task by task; all have the same tasks."""
    if len(tasks) == 1:
        return tasks[0]
    if any(other.ids != tasks[0].ids for other in tasks):
        raise RunError("the seeds of a mixture were benched on different tasks")
    return TaskScores(
        ids=tasks[0].ids,
        values=np.mean([t.values for t in tasks], axis=0),
        per_output={name: float(np.mean([t.per_output[name] for t in tasks])) for name in tasks[0].per_output},
        strict={name: float(np.mean([t.strict[name] for t in tasks])) for name in tasks[0].strict},
        denominator=math.lcm(*(t.denominator for t in tasks)) * len(tasks),
    )


def _table(rows: Sequence[ModelScores], record: SweepRecord, seed: int) -> str:
    found = score_intervals(rows, seed)
    cells = [[scores.model, *(_cell(row[name]) for name in HEADLINE)] for scores, row in zip(rows, found, strict=True)]
    return markdown_table([record.header, *HEADLINE], cells)


def _cell(found: Interval) -> str:
    return with_interval(found, WILSON_MARK if found.method == "wilson" else "")


def _about(section: Section, record: SweepRecord) -> str:
    text = (
        f"N = {section.n} predictions a test output, {len(section.tasks)} tasks; brackets: 95 % intervals over tasks "
        f"(BCa bootstrap, seed {section.seed}; {WILSON_MARK} Wilson's). They say what other tasks would have given, "
    )
    if len(record.seeds) == 1:
        return text + "not what another training run would have: each row is one training run."
    return text + "not what other training runs would have: see the spread over seeds."


def _spread(section: Section, record: SweepRecord) -> str:
    """For every mixture the lowest and highest seed, and the standard deviation over seeds, in points."""
    known = {scores.model: scores.tasks for scores in section.scored}
    cells = []
    for row in record.rows:
        means = np.array([[known[name].of(metric).mean() for metric in HEADLINE] for name in row.models])
        low, high, sd = means.min(axis=0), means.max(axis=0), means.std(axis=0, ddof=1)
        cells.append(
            [row.label]
            + [f"{percent(a)} – {percent(b)}, sd {100 * s:.1f}" for a, b, s in zip(low, high, sd, strict=True)]
        )
    return markdown_table([record.header, *HEADLINE], cells)

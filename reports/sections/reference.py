"""Compare the models of a report with published results, which are stored as JSON files in this folder."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from harness.core.errors import ConfigError
from harness.results.summary_table import metric_cells
from harness.results.table_format import markdown_table, percent
from harness.runs.schemas.results_schema import Metric
from harness.scoring.paired_comparison import HEADLINE
from harness.stats.intervals import Interval, wilson
from reports.loading.runs import Section
from reports.loading.sweep import SweepTable

_FOLDER = Path(__file__).parent
_NUMBER = re.compile(r"\d+(?:[._]\d+)?")
_TOLERANCE = 0.5
"""Weights in per cent that differ by less than this are the same mixture (33 and 33.3)."""

Row = tuple[str, Mapping[str, Metric] | Mapping[str, Interval]]
"""Name of a model or mixture, and its metrics."""


class ReferenceRow(BaseModel):
    """One published row. Metrics are fractions in [0, 1]."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    label: str
    weight: float
    """Share of original data in the training mixture, in per cent."""
    accuracy: float
    pass_n: float
    vote_2: float
    vote_1: float

    def value(self, metric: str) -> float:
        """Return one of the headline metrics."""
        return float(getattr(self, metric))


class Reference(BaseModel):
    """A published experiment."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    title: str
    about: str
    header: str
    """What the labels of the rows are, as the header of their column."""
    tasks: int
    rows: list[ReferenceRow]


def load_reference(name: str) -> Reference:
    """Return the published experiment with this name.

    Raises:
        ConfigError: no published experiment has this name.
    """
    known = sorted(path.stem for path in _FOLDER.glob("*.json"))
    if name not in known:
        raise ConfigError(f"there is no reference {name!r}; known: {', '.join(known)}")
    return Reference.model_validate_json((_FOLDER / f"{name}.json").read_bytes())


def published_section(reference: Reference, sections: Sequence[Section], sweep: Sequence[SweepTable]) -> list[str]:
    """Return markdown with one table per dataset: the published rows, and this report's models under them.

    Args:
        sweep: tables of the sweep. Their mixtures replace the adapters that they average.
    """
    parts = ["## Published results"]
    for section in sections:
        table = next((table for table in sweep if table.section is section), None)
        parts += [f"Rows of this report: `{section.heading}`."] if len(sections) > 1 else []
        parts += [f"{reference.title}: {reference.about}", reference_table(reference, _rows(section, table))]
        parts.append(_note(reference))
    return parts


def reference_table(reference: Reference, rows: Sequence[Row]) -> str:
    """Return a table of the published rows, each followed by the rows of this report with the same mixture.

    The first number in the name of a row is taken as its weight: ``50 %``, ``w50`` or ``mix-33_3-s1``. Rows that match
    no published weight come last.
    """
    cells = []
    remaining = dict(rows)
    for published in reference.rows:
        cells.append([published.label, "published", *(percent(published.value(metric)) for metric in HEADLINE)])
        for name in [name for name in remaining if _same_mixture(name, published.weight)]:
            cells.append([published.label, f"here: {name}", *metric_cells(remaining.pop(name))])
    cells += [["–", f"here: {name}", *metric_cells(metrics)] for name, metrics in remaining.items()]
    return markdown_table([reference.header, "row", *HEADLINE], cells, left=2)


def _rows(section: Section, table: SweepTable | None) -> list[Row]:
    """Return the metrics of each model of a section, or of each mixture and then of the models outside the sweep."""
    models: list[Row] = [(model, result.metrics) for model, result in section.results.models.items()]
    if table is None:
        return models
    averaged = {model for row in table.record.rows for model in row.models}
    mixtures: list[Row] = [
        (scores.model, metrics) for scores, metrics in zip(table.mixtures, table.intervals, strict=True)
    ]
    return mixtures + [row for row in models if row[0] not in averaged]


def _same_mixture(name: str, weight: float) -> bool:
    number = _NUMBER.search(name)
    return number is not None and abs(float(number[0].replace("_", ".")) - weight) < _TOLERANCE


def _note(reference: Reference) -> str:
    """Return what a comparison with published figures can and cannot show."""
    half_widths = []
    for metric in ("pass_n", "vote_2", "vote_1"):
        ends = [wilson(row.value(metric), reference.tasks) for row in reference.rows]
        half_widths.append(max(high - low for low, high in ends) / 2)
    return (
        "The published figures have no intervals. Their predictions are not available, so no interval can be computed "
        "and no difference tested. For scale: a share of solved tasks at these levels has a Wilson interval of about "
        f"± {100 * min(half_widths):.0f} to {100 * max(half_widths):.0f} points on {reference.tasks} tasks; accuracy, "
        "a mean over predictions, has a narrower one. The base model, the prompt, the amount of training and the "
        "number of predictions also change the level: compare the order of the rows, not their distance to a "
        "published row."
    )

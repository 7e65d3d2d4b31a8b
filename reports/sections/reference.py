"""Published figures to set a report beside, shipped as small data files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from harness.core.errors import ConfigError
from harness.results.summary_table import WILSON_MARK
from harness.results.table_format import markdown_table, percent, with_interval
from harness.runs.schema import Metric
from harness.scoring.paired_comparison import HEADLINE
from harness.stats.intervals import Interval, wilson

_FOLDER = Path(__file__).parent
_NUMBER = re.compile(r"\d+(?:[._]\d+)?")
_NEAR = 0.5
"""Labels whose numbers are closer than this name the same mixture (33 and 33.3)."""

Figures = Mapping[str, Metric] | Mapping[str, Interval]
Row = tuple[str, Figures]
"""A label or model, and its metrics."""


class ReferenceRow(BaseModel):
    """One published row; metrics are shares."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    label: str
    weight: float
    """The share of original data in per cent, by which rows are matched."""
    accuracy: float
    pass_n: float
    vote_2: float
    vote_1: float

    def share(self, metric: str) -> float:
        """One headline metric."""
        return float(getattr(self, metric))


class Reference(BaseModel):
    """A published experiment."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    title: str
    about: str
    header: str
    tasks: int
    rows: list[ReferenceRow]


def reference_names() -> list[str]:
    """What ``load_reference`` knows."""
    return sorted(path.stem for path in _FOLDER.glob("*.json"))


def load_reference(name: str) -> Reference:
    """The published experiment of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in reference_names():
        raise ConfigError(f"there is no reference {name!r}; known: {', '.join(reference_names())}")
    return Reference.model_validate_json((_FOLDER / f"{name}.json").read_bytes())


def reference_parts(reference: Reference, rows: Sequence[Row]) -> list[str]:
    """Markdown: each published row, and below it the rows of this report that were trained on the same mixture.

    A row of this report belongs to the published one whose weight is the first number in its label: ``50 %``,
    ``w50`` or ``mix-33_3-s1``. Rows that fit none stand at the end.
    """
    cells = []
    placed: set[str] = set()
    for published in reference.rows:
        cells.append([published.label, "published", *(percent(published.share(metric)) for metric in HEADLINE)])
        for label, found in rows:
            if label not in placed and _same_mixture(label, published.weight):
                placed.add(label)
                cells.append([published.label, f"here: {label}", *_figures(found)])
    cells += [["–", f"here: {label}", *_figures(found)] for label, found in rows if label not in placed]
    table = markdown_table([reference.header, "row", *HEADLINE], cells, left=2)
    return [f"{reference.title}: {reference.about}", table, _note(reference)]


def _same_mixture(label: str, weight: float) -> bool:
    number = _NUMBER.search(label)
    return number is not None and abs(float(number[0].replace("_", ".")) - weight) < _NEAR


def _figures(found: Figures) -> list[str]:
    shown = [found.get(m) for m in HEADLINE]
    return ["–" if m is None else with_interval(m, WILSON_MARK if m.method == "wilson" else "") for m in shown]


def _note(reference: Reference) -> str:
    """What the published figures do not say, and how wide an interval on as many tasks would be."""
    halves = []
    for metric in ("pass_n", "vote_2", "vote_1"):
        ends = [wilson(row.share(metric), reference.tasks) for row in reference.rows]
        halves.append(max(high - low for low, high in ends) / 2)
    return (
        "The published figures carry no intervals, and their predictions are not at hand, so that none can be computed "
        "and no difference to them tested. For scale only: a share of tasks at these levels, each solved or not, has a "
        f"Wilson interval of about ± {100 * min(halves):.0f} to {100 * max(halves):.0f} points on {reference.tasks} "
        "tasks; accuracy, a mean over predictions, has a narrower one. Another base model, prompt, amount of training "
        "or number of predictions changes the level too: compare the order of the rows, not the distance to a "
        "published one."
    )

"""Plot the paired differences with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.scoring.paired_comparison import HEADLINE, PairedComparison
from reports.loading.runs import Section
from reports.plots.intervals import label_lines, lay_out
from reports.plots.style import COLOURS, WIDTH, legend

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STYLES = {
    "better": (COLOURS[0], ">"),
    "worse": (COLOURS[1], "<"),
    "not resolved": ("0.45", "o"),
}
"""Colour and marker by verdict. Unresolved differences are hollow."""


@dataclass(frozen=True, slots=True)
class DrawnDifference:
    """One mark of the plot: a difference in one metric, as a share."""

    metric: str
    label: str
    """``MODEL − BASELINE``."""
    delta: float
    low: float | None
    high: float | None
    """Its interval; None without one."""
    verdict: str


def _drawn(row: PairedComparison) -> DrawnDifference:
    c = row.comparison
    return DrawnDifference(row.metric, pair_name(row), c.delta, c.low, c.high, c.verdict)


def differences_figure(sections: Sequence[Section]) -> Figure:
    """Draw one panel per headline metric with one line per comparison: model − baseline in points, and its interval."""
    shown = [section for section in sections if section.pairs]
    groups = [[_drawn(row) for row in section.pairs] for section in shown]
    return drawn_differences_figure([section.heading for section in shown], groups)


def drawn_differences_figure(headings: Sequence[str], groups: Sequence[Sequence[DrawnDifference]]) -> Figure:
    """Draw ``differences_figure`` of groups of differences, each group under its heading."""
    from matplotlib.figure import Figure

    lines = lay_out(headings, [list(dict.fromkeys(row.label for row in group)) for group in groups])
    figure = Figure(figsize=(WIDTH, 1.3 + 0.23 * len(lines)), layout="constrained")
    panels = figure.subplots(1, len(HEADLINE), sharey=True, squeeze=False)[0]
    for metric, panel in zip(HEADLINE, panels, strict=True):
        panel.axvline(0, color="0.2", linewidth=1)
        for line in lines:
            for row in groups[line.section]:
                if not line.heading and row.metric == metric and row.label == line.label:
                    _draw(panel, line.y, row)
        panel.set_title(metric)
        panel.set_xlabel("points")
        panel.grid(visible=False, axis="y")
        panel.tick_params(axis="y", length=0)
    label_lines(panels[0], lines)
    legend(figure, list(panels))
    return figure


def pair_name(row: PairedComparison) -> str:
    """Return the label of a comparison: ``model − baseline``."""
    return f"{row.model} − {row.baseline}"


def _draw(panel: Axes, y: float, comparison: DrawnDifference) -> None:
    colour, marker = _STYLES[comparison.verdict]
    if comparison.low is not None and comparison.high is not None:
        panel.plot([100 * comparison.low, 100 * comparison.high], [y, y], color=colour, linewidth=2.2)
    face = "white" if comparison.verdict == "not resolved" else colour
    panel.plot(
        [100 * comparison.delta],
        [y],
        marker,
        color=colour,
        markerfacecolor=face,
        markersize=6,
        label=comparison.verdict,
        linestyle="",
    )

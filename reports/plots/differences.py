"""Plot the paired differences with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
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


def differences_figure(sections: Sequence[Section]) -> Figure:
    """Draw one panel per headline metric with one line per comparison: model − baseline in points, and its interval."""
    from matplotlib.figure import Figure

    shown = [section for section in sections if section.pairs]
    names = [list(dict.fromkeys(map(pair_name, section.pairs))) for section in shown]
    lines = lay_out([section.heading for section in shown], names)
    figure = Figure(figsize=(WIDTH, 1.3 + 0.23 * len(lines)), layout="constrained")
    panels = figure.subplots(1, len(HEADLINE), sharey=True, squeeze=False)[0]
    for metric, panel in zip(HEADLINE, panels, strict=True):
        panel.axvline(0, color="0.2", linewidth=1)
        for line in lines:
            for row in shown[line.section].pairs:
                if not line.heading and row.metric == metric and pair_name(row) == line.label:
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


def _draw(panel: Axes, y: float, row: PairedComparison) -> None:
    comparison = row.comparison
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

"""Intervals side by side: every model's metrics on every dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.scoring.paired_comparison import HEADLINE
from reports.loading.runs import Section, all_models
from reports.plots.style import WIDTH, look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart of lines: a heading, or a model under it; ``y`` grows downwards."""

    y: float
    label: str
    section: int
    heading: bool = False


def lay_out(headings: Sequence[str], labels: Sequence[Sequence[str]]) -> list[Line]:
    """Lines for groups of labels, each group under its heading (left out where there is one group only)."""
    lines: list[Line] = []
    y = 0.0
    for index, (heading, group) in enumerate(zip(headings, labels, strict=True)):
        if len(headings) > 1:
            lines.append(Line(y, heading, index, heading=True))
            y += 1
        for label in group:
            lines.append(Line(y, label, index))
            y += 1
        y += 0.4
    return lines


def label_lines(panel: Axes, lines: Sequence[Line]) -> None:
    """Write the labels of lines at the left of a panel, headings in bold, the first at the top."""
    panel.set_yticks([line.y for line in lines], [line.label for line in lines])
    for tick, line in zip(panel.get_yticklabels(), lines, strict=True):
        if line.heading:
            tick.set_fontweight("bold")
    panel.set_ylim(lines[-1].y + 0.7, lines[0].y - 0.7)


def intervals_figure(sections: Sequence[Section]) -> Figure:
    """One panel a headline metric, one line a dataset and model: the value and its interval, in per cent."""
    from matplotlib.figure import Figure

    names = [[scores.model for scores in section.scored] for section in sections]
    lines = lay_out([section.heading for section in sections], names)
    figure = Figure(figsize=(WIDTH, 1.0 + 0.23 * len(lines)), layout="constrained")
    panels = figure.subplots(1, len(HEADLINE), sharey=True, squeeze=False)[0]
    for metric, panel in zip(HEADLINE, panels, strict=True):
        _draw_panel(panel, sections, lines, metric, all_models(sections))
    label_lines(panels[0], lines)
    return figure


def _draw_panel(
    panel: Axes, sections: Sequence[Section], lines: Sequence[Line], metric: str, models: Sequence[str]
) -> None:
    for line in lines:
        if line.heading:
            continue
        found = sections[line.section].results.models[line.label].metrics.get(metric)
        if found is None:
            continue
        own = look(models.index(line.label))
        panel.plot([100 * found.low, 100 * found.high], [line.y, line.y], color=own.colour, linewidth=2.2)
        panel.plot([100 * found.value], [line.y], own.marker, color=own.colour, markersize=6)
    panel.set_title(metric)
    panel.set_xlabel("%")
    panel.grid(visible=False, axis="y")
    panel.tick_params(axis="y", length=0)
    low, high = panel.get_xlim()
    # An interval near its end would seem open where the axis stops.
    panel.set_xlim(max(low, -2.0), min(high, 102.0))

"""Plot the metrics of every model on every dataset with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.runs.schemas.results_schema import Results
from harness.scoring.paired_comparison import HEADLINE
from reports.loading.runs import Section, all_models
from reports.plots.style import WIDTH, look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a plot: the heading of a section, or a label under it."""

    y: float
    """Position, growing downwards."""
    label: str
    section: int
    """Index of the section."""
    heading: bool = False


def lay_out(headings: Sequence[str], labels: Sequence[Sequence[str]]) -> list[Line]:
    """Return the lines of groups of labels, each group under its heading. A single group has no heading."""
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
    """Write the labels at the left of a panel, the first at the top and headings in bold."""
    panel.set_yticks([line.y for line in lines], [line.label for line in lines])
    for tick, line in zip(panel.get_yticklabels(), lines, strict=True):
        if line.heading:
            tick.set_fontweight("bold")
    panel.set_ylim(lines[-1].y + 0.7, lines[0].y - 0.7)


def intervals_figure(sections: Sequence[Section]) -> Figure:
    """Draw one panel per headline metric with one line per dataset and model: value and interval in per cent."""
    names = [[scores.model for scores in section.scored] for section in sections]
    lines = lay_out([section.heading for section in sections], names)
    return _draw([section.results for section in sections], lines, all_models(sections))


def results_figure(results: Results) -> Figure:
    """Draw ``intervals_figure`` of the models of one results.json."""
    names = list(results.models)
    return _draw([results], lay_out([""], [names]), names)


def _draw(results: Sequence[Results], lines: Sequence[Line], models: Sequence[str]) -> Figure:
    """Draw the lines, whose ``section`` is an index of ``results``."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, 1.0 + 0.23 * len(lines)), layout="constrained")
    panels = figure.subplots(1, len(HEADLINE), sharey=True, squeeze=False)[0]
    for metric, panel in zip(HEADLINE, panels, strict=True):
        _draw_panel(panel, results, lines, metric, models)
    label_lines(panels[0], lines)
    return figure


def _draw_panel(
    panel: Axes, results: Sequence[Results], lines: Sequence[Line], metric: str, models: Sequence[str]
) -> None:
    for line in lines:
        if line.heading:
            continue
        value = results[line.section].models[line.label].metrics.get(metric)
        if value is None:
            continue
        style = look(models.index(line.label))
        panel.plot([100 * value.low, 100 * value.high], [line.y, line.y], color=style.colour, linewidth=2.2)
        panel.plot([100 * value.value], [line.y], style.marker, color=style.colour, markersize=6)
    panel.set_title(metric)
    panel.set_xlabel("%")
    panel.grid(visible=False, axis="y")
    panel.tick_params(axis="y", length=0)
    low, high = panel.get_xlim()
    # Keep a margin beyond 0 and 100, or an interval that ends there would seem cut off.
    panel.set_xlim(max(low, -2.0), min(high, 102.0))

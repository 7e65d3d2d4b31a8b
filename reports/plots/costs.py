"""Plot vote_2 against the cost of a task, one point per model, as ARC Prize's leaderboard does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.runs.schema import Metric
from reports.loading.prices import GpuPrice, dollars
from reports.loading.runs import Section, all_models
from reports.plots.style import WIDTH, legend, look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 3


@dataclass(frozen=True, slots=True)
class CostPoint:
    """One model of a section."""

    model: str
    cost: float
    """Dollars per task."""
    vote_2: Metric


def cost_points(section: Section, price: GpuPrice) -> list[CostPoint]:
    """Return the models of a section whose cost is known and above 0."""
    points = []
    for model, run, name in section.models_with_runs():
        cost = price.task_cost(run, name)
        if cost:
            points.append(CostPoint(model, cost, section.results.models[model].metrics["vote_2"]))
    return points


def costs_figure(sections: Sequence[Section], price: GpuPrice) -> Figure:
    """Draw one panel per dataset: vote_2 in per cent with its interval, dollars per task on a logarithmic axis.

    Sections without a known cost are left out; one must have some.
    """
    from matplotlib.figure import Figure

    models = all_models(sections)
    drawn = [(section, points) for section in sections if (points := cost_points(section, price))]
    rows = -(-len(drawn) // _COLUMNS)
    figure = Figure(figsize=(WIDTH, 0.6 + 3.0 * rows), layout="constrained")
    panels = list(figure.subplots(rows, min(_COLUMNS, len(drawn)), squeeze=False).ravel())
    for panel, (section, points) in zip(panels, drawn, strict=False):
        _draw_panel(panel, points, models)
        panel.set_title(section.heading)
    for empty in panels[len(drawn) :]:
        empty.set_axis_off()
    legend(figure, panels[: len(drawn)])
    return figure


def _draw_panel(panel: Axes, points: Sequence[CostPoint], models: Sequence[str]) -> None:
    for point in points:
        style, metric = look(models.index(point.model)), point.vote_2
        ends = [[100 * (metric.value - metric.low)], [100 * (metric.high - metric.value)]]
        panel.errorbar(
            [point.cost], [100 * metric.value], ends, fmt=style.marker, color=style.colour, capsize=2.5,
            label=point.model,
        )  # fmt: skip
    panel.set_xscale("log")
    least, most = min(point.cost for point in points), max(point.cost for point in points)
    panel.set_xlim(least / 2, most * 2)
    ticks = [least] if most < 1.2 * least else [least, (least * most) ** 0.5, most]
    panel.set_xticks(ticks, [dollars(tick) for tick in ticks], minor=False)
    panel.minorticks_off()
    panel.set(xlabel="cost a task", ylabel="vote_2, %", ylim=(-4, 104))

"""Plot accuracy and vote_2 against the cost of a task, training at test time included (as ARC Prize does)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from reports.loading.prices import GpuPrice, dollars
from reports.loading.runs import Section, all_models
from reports.loading.task_costs import has_test_time_training, task_cost
from reports.plots.style import WIDTH, legend, look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_METRICS = ("accuracy", "vote_2")


def costs_by_model(section: Section, price: GpuPrice | None = None) -> dict[str, float]:
    """Return the models of a section whose cost is known: dollars per task, or seconds without a price."""
    costs = {
        model: task_cost(run, name).total if price is None else price.task_dollars(run, name)
        for model, run, name in section.models_with_runs()
    }
    return {model: cost for model, cost in costs.items() if cost}


def sections_with_costs(sections: Sequence[Section], price: GpuPrice | None = None) -> list[Section]:
    """Return the sections with a known cost; without a price, those with test-time training and two known costs."""
    if price is not None:
        return [section for section in sections if costs_by_model(section, price)]
    return [section for section in sections if has_test_time_training(section) and len(costs_by_model(section)) > 1]


def costs_figure(sections: Sequence[Section], price: GpuPrice | None = None) -> Figure:
    """Draw one row of panels per section: each model's value with its interval, against the cost of a task."""
    from matplotlib.figure import Figure

    models, drawn = all_models(sections), sections_with_costs(sections, price)
    figure = Figure(figsize=(WIDTH, 0.6 + 3.0 * len(drawn)), layout="constrained")
    rows = figure.subplots(len(drawn), len(_METRICS), squeeze=False)
    for section, panels in zip(drawn, rows, strict=True):
        costs = costs_by_model(section, price)
        for metric, panel in zip(_METRICS, panels, strict=True):
            for model, cost in costs.items():
                if (value := section.results.models[model].metrics.get(metric)) is None:
                    continue
                style = look(models.index(model))
                panel.plot([cost, cost], [100 * value.low, 100 * value.high], color=style.colour, linewidth=1.5)
                panel.plot([cost], [100 * value.value], style.marker, color=style.colour, label=model)
            title = metric if len(drawn) == 1 else f"{section.heading}: {metric}"
            panel.set(title=title, ylabel="%", ylim=(-3, 103))
            _set_cost_axis(panel, list(costs.values()), price)
    legend(figure, [panel for row in rows for panel in row])
    return figure


def _set_cost_axis(panel: Axes, costs: Sequence[float], price: GpuPrice | None) -> None:
    """Scale the axis of costs: seconds from 0, dollars on a logarithmic scale."""
    if price is None:
        panel.set(xlabel="seconds a task, training included")
        panel.set_xlim(left=0)
        return
    least, most = min(costs), max(costs)
    panel.set(xlabel="cost a task", xscale="log", xlim=(least / 2, most * 2))
    ticks = [least] if most < 1.2 * least else [least, (least * most) ** 0.5, most]
    panel.set_xticks(ticks, [dollars(tick) for tick in ticks], minor=False)
    panel.minorticks_off()

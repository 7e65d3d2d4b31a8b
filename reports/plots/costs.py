"""Plot accuracy and vote_2 against the seconds that a task costs, training included."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from reports.loading.runs import Section, all_models
from reports.loading.task_costs import has_test_time_training, task_costs
from reports.plots.style import WIDTH, legend, look

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_METRICS = ("accuracy", "vote_2")


def priced_sections(sections: Sequence[Section]) -> list[Section]:
    """Return the sections with test-time training and at least two models of known cost."""
    return [
        section
        for section in sections
        if has_test_time_training(section) and sum(c.total is not None for c in task_costs(section).values()) > 1
    ]


def costs_figure(sections: Sequence[Section]) -> Figure:
    """Draw one row of panels per section: each model's value with its interval, against seconds a task."""
    from matplotlib.figure import Figure

    models, priced = all_models(sections), priced_sections(sections)
    figure = Figure(figsize=(WIDTH, 0.6 + 3.0 * len(priced)), layout="constrained")
    rows = figure.subplots(len(priced), len(_METRICS), squeeze=False)
    for section, panels in zip(priced, rows, strict=True):
        costs = task_costs(section)
        for metric, panel in zip(_METRICS, panels, strict=True):
            for model, result in section.results.models.items():
                value, seconds = result.metrics.get(metric), costs[model].total
                if value is None or seconds is None:
                    continue
                style = look(models.index(model))
                panel.plot([seconds, seconds], [100 * value.low, 100 * value.high], color=style.colour, linewidth=1.5)
                panel.plot([seconds], [100 * value.value], style.marker, color=style.colour, label=model)
            title = metric if len(priced) == 1 else f"{section.heading}: {metric}"
            panel.set(title=title, xlabel="seconds a task, training included", ylabel="%", ylim=(-3, 103))
            panel.set_xlim(left=0)
    legend(figure, [panel for row in rows for panel in row])
    return figure

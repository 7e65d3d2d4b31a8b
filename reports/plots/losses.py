"""Training loss curves of the benched adapters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from harness.stats.intervals import running_mean
from reports.loading.training import Training
from reports.plots.style import WIDTH, legend, look

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDE = 20.0
"""A fall by more than this factor is shown on a logarithmic axis."""


def losses_figure(trained: Mapping[str, Training], models: Sequence[str]) -> Figure:
    """One panel: for each model the running mean of its loss over the steps, and its validation as points.

    Args:
        trained: by model; those without a log are left out.
        models: all models of the report, whose order decides the looks.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    panel = figure.subplots()
    lowest, highest = [], []
    for model, training in trained.items():
        if not training.losses:
            continue
        own = look(models.index(model))
        steps = [step for step, _ in training.losses]
        means = running_mean([loss for _, loss in training.losses])
        panel.plot(steps, means, own.line, color=own.colour, linewidth=1.5, label=model)
        if training.validation:
            panel.plot(
                *zip(*training.validation, strict=True), own.marker, color=own.colour, markersize=6,
                markeredgecolor="white", label=f"{model}, validation",
            )  # fmt: skip
        lowest.append(min(means))
        highest.append(max(means))
    panel.set(xlabel="step", ylabel="loss per answer token, nats")
    if min(lowest) > 0 and max(highest) > _WIDE * min(lowest):
        panel.set_yscale("log")
    else:
        panel.set_ylim(bottom=0)
    legend(figure, [panel])
    return figure

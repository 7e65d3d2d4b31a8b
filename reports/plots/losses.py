"""Plot the training loss of the benched adapters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from harness.stats.intervals import running_mean
from reports.loading.training import Training
from reports.plots.style import WIDTH, legend, look

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LOGARITHMIC_FROM = 20.0
"""A fall by more than this factor is shown on a logarithmic axis."""


def losses_figure(trained: Mapping[str, Training], models: Sequence[str]) -> Figure:
    """Draw the running mean of each model's training loss, with its validation losses as points.

    Args:
        trained: training runs by model name. Those without a log are skipped.
        models: all models of the report; the index of a model decides its look.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    panel = figure.subplots()
    lowest, highest = [], []
    for model, training in trained.items():
        if not training.losses:
            continue
        style = look(models.index(model))
        steps = [step for step, _ in training.losses]
        means = running_mean([loss for _, loss in training.losses])
        panel.plot(steps, means, style.line, color=style.colour, linewidth=1.5, label=model)
        if training.validation:
            panel.plot(
                *zip(*training.validation, strict=True), style.marker, color=style.colour, markersize=6,
                markeredgecolor="white", label=f"{model}, validation",
            )  # fmt: skip
        lowest.append(min(means))
        highest.append(max(means))
    panel.set(xlabel="step", ylabel="loss per answer token, nats")
    if min(lowest) > 0 and max(highest) > _LOGARITHMIC_FROM * min(lowest):
        panel.set_yscale("log")
    else:
        panel.set_ylim(bottom=0)
    legend(figure, [panel])
    return figure

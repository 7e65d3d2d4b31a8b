"""Plot the smallest difference of two recipes that is resolved, against tasks, training runs and predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.recipes.recipe_plan import PowerCurve, RecipePlan, power_curves
from reports.plots.style import WIDTH, look, render, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_AXES = {
    "tasks": "tasks",
    "training runs": "training runs of each recipe",
    "predictions": "predictions per test output",
}
_BINARY = ("predictions",)
"""Numbers that are powers of two."""


def plan_picture(plan: RecipePlan, kind: str) -> bytes:
    """Return the picture of a plan as a file.

    Args:
        kind: ``png`` or ``svg``.
    """
    with styled():
        return render(power_figure(plan), "plan", vector=kind == "svg")[f"plan.{kind}"]


def power_figure(plan: RecipePlan) -> Figure:
    """Draw one panel for each number that may vary; the pilot is a point, the wanted difference a dashed line."""
    from matplotlib.figure import Figure

    curves = power_curves(plan)
    varied = list(dict.fromkeys(curve.varied for curve in curves))
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    panels = figure.subplots(1, len(varied), squeeze=False, sharey=True)[0]
    for name, panel in zip(varied, panels, strict=True):
        _draw_panel(panel, [curve for curve in curves if curve.varied == name], plan)
        panel.set_xlabel(_AXES[name])
    panels[0].set_ylabel("smallest difference resolved\nat 80 % power, points")
    panels[0].set_ylim(bottom=0)
    figure.suptitle(f"{plan.pilot.metric}: what resolves {100 * plan.difference:g} points", fontsize=10)
    return figure


def _draw_panel(panel: Axes, curves: list[PowerCurve], plan: RecipePlan) -> None:
    """Draw the curves over one number."""
    name = curves[0].varied
    for index, curve in enumerate(curves):
        style = look(index)
        values = [100 * value for value in curve.resolvable]
        panel.plot(curve.numbers, values, color=style.colour, linestyle=style.line, label=curve.label)
    panel.axhline(100 * plan.difference, color="0.4", linestyle="--", linewidth=0.9)
    pilot = {"tasks": "tasks", "training runs": "runs", "predictions": "predictions"}[name]
    panel.plot([getattr(plan.pilot.plan, pilot)], [100 * plan.resolvable], "ko", markersize=6, label="pilot")
    if name != "training runs":
        panel.set_xscale("log", base=2 if name in _BINARY else 10)
    panel.legend(fontsize=8)

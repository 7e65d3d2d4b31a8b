"""Plot accuracy, pass@k and vote@k against the number of predictions, with intervals over tasks as bands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.scoring.paired_comparison import HEADLINE
from harness.stats.intervals import Interval, intervals
from harness.voting.metrics import STRICT_METRICS, task_curves
from harness.voting.subset_curves import curve_points
from reports.loading.runs import Section, all_models
from reports.plots.style import WIDTH, legend, look

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_TITLES = {"accuracy": "accuracy", "pass_n": "pass@k", "vote_2": "vote_2@k", "vote_1": "vote_1@k"}
_FEW_MODELS = 8
"""With more models no bands are drawn, because they would cover each other."""


@dataclass(frozen=True, slots=True)
class Curve:
    """One metric of one model with its interval over tasks, for every number of predictions in ``ks``."""

    model: str
    metric: str
    ks: tuple[int, ...]
    points: tuple[Interval, ...]


def section_curves(section: Section) -> list[Curve]:
    """Return the curves of every model with a known accuracy, which is a constant; metrics in the order of HEADLINE.

    With early stopping the curves end with the first round. Enumerated views have no curves of votes.
    """
    rows, names = [], []
    for scores in section.rated:
        ks = curve_points(min(score.n for outputs in scores.outputs.values() for score in outputs))
        curves = task_curves(scores.outputs, ks)
        for metric in HEADLINE:
            if metric in STRICT_METRICS and metric not in curves:
                continue
            flat = np.tile(scores.tasks.values_of("accuracy"), (len(ks), 1))
            rows.append(curves[metric] if metric in STRICT_METRICS else flat)
            names.append((scores.model, metric, ks))
    points = iter(intervals(np.concatenate(rows), 1, section.seed))
    return [Curve(model, metric, ks, tuple(next(points) for _ in ks)) for model, metric, ks in names]


def curves_figure(sections: Sequence[Section]) -> Figure:
    """Draw one row of panels per dataset and one panel per metric, in per cent, with k on a logarithmic axis."""
    from matplotlib.figure import Figure

    models = all_models(sections)
    sections = [section for section in sections if section.rated]
    figure = Figure(figsize=(WIDTH, 0.5 + 2.6 * len(sections)), layout="constrained")
    rows = figure.subplots(len(sections), len(HEADLINE), squeeze=False, sharey="row")
    for section, row in zip(sections, rows, strict=True):
        curves = section_curves(section)
        for metric, panel in zip(HEADLINE, row, strict=True):
            _draw_panel(panel, [curve for curve in curves if curve.metric == metric], models)
            panel.set_title(_TITLES[metric])
        row[0].set_ylabel(f"{section.heading}\n%" if len(sections) > 1 else "%", fontsize=8)
    for panel in rows[-1]:
        panel.set_xlabel("k of the predictions")
    legend(figure, list(rows.ravel()))
    return figure


def _draw_panel(panel: Axes, curves: Sequence[Curve], models: Sequence[str]) -> None:
    for curve in curves:
        style = look(models.index(curve.model))
        values = [100 * point.value for point in curve.points]
        panel.plot(
            curve.ks, values, style.line, color=style.colour, marker=style.marker, markersize=3.5, linewidth=1.4,
            label=curve.model,
        )  # fmt: skip
        if len(curves) <= _FEW_MODELS:
            low, high = [100 * p.low for p in curve.points], [100 * p.high for p in curve.points]
            panel.fill_between(curve.ks, low, high, color=style.colour, alpha=0.12, linewidth=0)
    if not curves:
        panel.text(0.5, 0.5, "no vote curves of\nenumerated views", ha="center", va="center", transform=panel.transAxes)
        return
    ks = max((curve.ks for curve in curves), key=len)
    panel.set_xscale("log", base=2)
    panel.set_xticks(ks, [str(k) for k in ks], minor=False)
    panel.minorticks_off()

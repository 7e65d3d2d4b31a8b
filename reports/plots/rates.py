"""Per-task solve rate of one model against another: where the difference comes from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.scoring.run_scores import ModelScores
from reports.loading.runs import Section
from reports.plots.style import COLOURS, WIDTH, panel_groups, panel_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 4
_AREA = 14.0
"""Of the circle of one task, in square points; that of n tasks has √n times as much."""
_CROWD = 10
"""So many tasks at one corner are told in words: a circle does not show how many."""
_TICKS = (0, 25, 50, 75, 100)


def rates_figure(sections: Sequence[Section]) -> Figure:
    """One panel for each dataset and each model but the reference: tasks by the share of exact predictions of both.

    A circle grows with the number of tasks at its place; above the diagonal the model is better.
    """
    from matplotlib.figure import Figure

    shown = [section for section in sections if rate_pairs(section)]
    pairs = [rate_pairs(section) for section in shown]
    counts = [len(group) for group in pairs]
    figure = Figure(figsize=(WIDTH, 3.1 * panel_rows(counts, _COLUMNS)), layout="constrained")
    groups = panel_groups(figure, counts, _COLUMNS)
    for section, own, panels in zip(shown, pairs, groups, strict=True):
        for (reference, scores), panel in zip(own, panels, strict=True):
            _draw_panel(panel, reference, scores)
        if len(sections) > 1:
            panels[0].set_ylabel(f"{section.heading}\n{panels[0].get_ylabel()}")
    return figure


def rate_pairs(section: Section) -> list[tuple[ModelScores, ModelScores]]:
    """The reference with each other model, as far as both have solve rates."""
    reference = next((scores for scores in section.rated if scores.model == section.reference), None)
    return [(reference, scores) for scores in section.rated if reference is not None and scores is not reference]


def _draw_panel(panel: Axes, reference: ModelScores, scores: ModelScores) -> None:
    x, y = 100 * reference.tasks.of("accuracy"), 100 * scores.tasks.of("accuracy")
    places, counts = np.unique(np.stack([x, y], axis=1), axis=0, return_counts=True)
    sides = np.sign(places[:, 1] - places[:, 0])
    area = _AREA * np.sqrt(counts)
    panel.plot([0, 100], [0, 100], color="0.5", linewidth=0.8, zorder=1)
    for side, colour in ((-1, COLOURS[1]), (0, "0.35"), (1, COLOURS[0])):
        across, up = places[sides == side].T
        size = area[sides == side]
        panel.scatter(across, up, s=size, facecolor=colour, alpha=0.55, edgecolor="white", linewidth=0.4, zorder=2)
    panel.set(xlim=(-5, 105), ylim=(-5, 105), xticks=_TICKS, yticks=_TICKS)
    panel.set(xlabel=f"{reference.model}, %", ylabel=f"{scores.model}, %")
    told = [f"{(y > x).sum()} tasks above, {(y < x).sum()} below, {(y == x).sum()} equal"]
    told += [f"{count} of them at {place:.0f} %" for place, count in _crowds(places, counts)]
    panel.set_title("\n".join([told[0], ", ".join(told[1:])]).rstrip(), fontsize=8)


def _crowds(places: NDArray[np.float64], counts: NDArray[np.int64]) -> list[tuple[float, int]]:
    """Tasks that both models always or never solve, where they are many."""
    corner = (places[:, 0] == places[:, 1]) & np.isin(places[:, 0], (0.0, 100.0)) & (counts >= _CROWD)
    return [(float(place), int(count)) for place, count in zip(places[corner][:, 0], counts[corner], strict=True)]

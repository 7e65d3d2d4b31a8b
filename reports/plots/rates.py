"""Plot the solve rate of every task of one model against another, which shows on which tasks they differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from harness.scoring.comparable_metrics import comparable_values
from harness.scoring.model_scores import ModelScores
from reports.loading.runs import Section
from reports.plots.style import COLOURS, WIDTH, panel_groups, panel_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 4
_AREA = 14.0
"""Area of the circle of one task in square points; n tasks get √n times as much."""
_CROWD = 10
"""From this many tasks at 0 % or 100 % of both models, the title states their number."""
_TICKS = (0, 25, 50, 75, 100)


def rates_figure(sections: Sequence[Section]) -> Figure:
    """Draw one panel per dataset and model: accuracy per task of the model (y) and the section's reference (x).

    Tasks with the same two accuracies share a circle, whose area grows with their number. Above the diagonal the model
    is better than the reference.
    """
    from matplotlib.figure import Figure

    shown = [section for section in sections if rate_pairs(section)]
    pairs = [rate_pairs(section) for section in shown]
    counts = [len(group) for group in pairs]
    figure = Figure(figsize=(WIDTH, 3.1 * panel_rows(counts, _COLUMNS)), layout="constrained")
    groups = panel_groups(figure, counts, _COLUMNS)
    for section, section_pairs, panels in zip(shown, pairs, groups, strict=True):
        for (reference, scores), panel in zip(section_pairs, panels, strict=True):
            _draw_panel(panel, reference, scores)
        if len(sections) > 1:
            panels[0].set_ylabel(f"{section.heading}\n{panels[0].get_ylabel()}")
    return figure


def rate_pairs(section: Section) -> list[tuple[ModelScores, ModelScores]]:
    """Return the scores of the section's reference model paired with those of every other comparable model.

    The list is empty if the accuracy of the reference is not known.
    """
    reference = next((scores for scores in section.rated if scores.model == section.reference), None)
    if reference is None:
        return []
    others = [scores for scores in section.rated if scores is not reference]
    return [(reference, s) for s in others if comparable_values("accuracy", s, reference) is not None]


def _draw_panel(panel: Axes, reference: ModelScores, scores: ModelScores) -> None:
    # Rounded as in comparisons: sums in another order differ in the last bits, which is no difference.
    x, y = (100 * np.round(each.tasks.values_of("accuracy"), 12) for each in (reference, scores))
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
    summary = f"{(y > x).sum()} tasks above, {(y < x).sum()} below, {(y == x).sum()} equal"
    crowds = ", ".join(f"{count} of them at {place:.0f} %" for place, count in _crowds(places, counts))
    panel.set_title(f"{summary}\n{crowds}".rstrip(), fontsize=8)


def _crowds(places: NDArray[np.float64], counts: NDArray[np.int64]) -> list[tuple[float, int]]:
    """Return (accuracy in %, number) of the tasks that both models always or never solve, if at least ``_CROWD``."""
    corner = (places[:, 0] == places[:, 1]) & np.isin(places[:, 0], (0.0, 100.0)) & (counts >= _CROWD)
    return [(float(place), int(count)) for place, count in zip(places[corner][:, 0], counts[corner], strict=True)]

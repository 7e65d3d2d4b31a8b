"""Pictures of numbers: intervals side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.pairs import HEADLINE
from reports.loading import Section

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette, which the colour-blind tell apart; markers tell the models apart in grey."""
_MARKERS = "osD^vPX"


def plot_intervals(sections: Sequence[Section], path: Path) -> None:
    """One panel a headline metric, one row a dataset and model: the value and its interval."""
    from matplotlib.figure import Figure

    models = list(dict.fromkeys(scores.model for section in sections for scores in section.scored))
    rows = [(section, scores.model) for section in sections for scores in section.scored]
    figure = Figure(figsize=(11, 0.9 + 0.24 * len(rows) + 0.25 * len(sections)), layout="constrained")
    panels = figure.subplots(1, len(HEADLINE), sharey=True, squeeze=False)[0]
    for metric, panel in zip(HEADLINE, panels, strict=True):
        ticks = _draw_panel(panel, sections, metric, models)
        panel.set_title(metric)
        panel.set_xlim(-2, 102)
        panel.set_xlabel("%")
        panel.grid(axis="x", color="0.9")
    panels[0].set_yticks([y for y, _ in ticks], [label for _, label in ticks], fontsize=8)
    panels[0].invert_yaxis()
    handles, labels = panels[0].get_legend_handles_labels()
    by_label = dict(zip(labels, handles, strict=True))
    figure.legend(by_label.values(), by_label.keys(), loc="outside upper center", ncols=len(by_label), frameon=False)
    _save(figure, path)


def _draw_panel(
    panel: Axes, sections: Sequence[Section], metric: str, models: Sequence[str]
) -> list[tuple[float, str]]:
    """Draw one metric; returns where each dataset's label belongs on the y axis."""
    ticks: list[tuple[float, str]] = []
    y = 0.0
    for section in sections:
        ticks.append((y + (len(section.scored) - 1) / 2, section.dataset.split("#")[0]))
        for scores in section.scored:
            found = section.results.models[scores.model].metrics[metric]
            k = models.index(scores.model) % len(_COLOURS)
            panel.plot([100 * found.low, 100 * found.high], [y, y], color=_COLOURS[k], linewidth=2)
            panel.plot([100 * found.value], [y], _MARKERS[k], color=_COLOURS[k], markersize=5, label=scores.model)
            y += 1
        y += 1
    return ticks


def _save(figure: object, path: Path) -> None:
    # No creation date or version inside, so that the same figures give the same bytes.
    figure.savefig(path, dpi=130, metadata={"Software": None} if path.suffix == ".png" else {"Date": None})  # type: ignore[attr-defined]

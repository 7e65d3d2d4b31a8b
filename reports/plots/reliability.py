"""Reliability of the vote: the share of the votes that the winning grid has, against how often it is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.scoring.run_scores import ModelScores
from harness.stats.intervals import wilson
from harness.voting.metrics import OutputScore
from reports.loading.runs import Section, all_models
from reports.plots.style import WIDTH, Look, look, panel_groups, panel_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 5
BINS = 10


@dataclass(frozen=True, slots=True)
class Bin:
    """Test outputs whose winner has a similar share of the N votes: means of the share and of being right."""

    share: float
    right: float
    low: float
    high: float
    """Wilson's interval of ``right`` with the number of tasks as its n."""
    outputs: int


def winner_share(score: OutputScore) -> float:
    """The share of the n predictions that the most frequent grid has; 0 where no prediction gave a grid."""
    return max(score.exact, *score.wrong[:1], 0) / score.n


def reliability(scores: ModelScores) -> list[Bin]:
    """The test outputs of a model in ten bins by the winner's share; those without any grid are left out.

    Being right is vote_1: a fraction where tied grids share the first place.
    """
    members: dict[int, list[tuple[str, OutputScore]]] = {}
    for task, outputs in scores.outputs.items():
        for score in outputs:
            if score.failures < score.n:
                members.setdefault(min(int(winner_share(score) * BINS), BINS - 1), []).append((task, score))
    return [_bin(members[place]) for place in sorted(members)]


def _bin(members: Sequence[tuple[str, OutputScore]]) -> Bin:
    count = len(members)
    right = sum(score.vote_1 for _, score in members) / count
    low, high = wilson(right, len({task for task, _ in members}))
    return Bin(sum(winner_share(score) for _, score in members) / count, right, low, high, count)


def reliability_figure(sections: Sequence[Section]) -> Figure:
    """One panel for each dataset and whole model: points with Wilson intervals, and bars for how many outputs."""
    from matplotlib.figure import Figure

    models = all_models(sections)
    sections = [section for section in sections if section.whole]
    counts = [len(section.whole) for section in sections]
    columns = min(_COLUMNS, max(*counts, 3))
    height = 0.2 + WIDTH / columns * 1.1 * panel_rows(counts, columns)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    groups = panel_groups(figure, counts, columns)
    for section, panels in zip(sections, groups, strict=True):
        for scores, panel in zip(section.whole, panels, strict=True):
            _draw_panel(panel, reliability(scores), look(models.index(scores.model)))
            panel.set_title(scores.model)
            panel.set_xlabel("share of votes won, %")
        panels[0].set_ylabel("winner is right, %" if len(sections) == 1 else f"{section.heading}\nwinner is right, %")
    return figure


def _draw_panel(panel: Axes, bins: Sequence[Bin], own: Look) -> None:
    panel.plot([0, 100], [0, 100], color="0.5", linewidth=0.8, linestyle="--")
    total = sum(b.outputs for b in bins)
    for b in bins:
        # The share of all outputs in a bin, as a bar from the bottom.
        panel.bar(100 * b.share, 100 * b.outputs / total, width=7, color="0.85", zorder=0)
        panel.plot([100 * b.share] * 2, [100 * b.low, 100 * b.high], color=own.colour, linewidth=1.6)
    panel.plot([100 * b.share for b in bins], [100 * b.right for b in bins], own.marker, color=own.colour, markersize=5)
    panel.set(xlim=(-5, 105), ylim=(-5, 105))

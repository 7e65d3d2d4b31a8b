"""Plot the reliability of the vote: the share of votes that the winning grid has, against how often it is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.scoring.model_scores import ModelScores
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
    """Test outputs whose winning grid has a similar share of the N predictions."""

    share: float
    """Mean share of the winning grid."""
    right: float
    """Mean vote_1, how often the winning grid is right."""
    low: float
    high: float
    """Wilson's interval of ``right``, with the number of tasks as its n: outputs of one task are not independent."""
    outputs: int
    """Number of test outputs."""


def winner_share(score: OutputScore) -> float:
    """Return the share of the n predictions that the most frequent grid has; 0 if no prediction has a grid."""
    return max(score.exact, *score.wrong[:1], 0) / score.n


def reliability(scores: ModelScores) -> list[Bin]:
    """Group a model's test outputs into ten bins by the share of the winning grid; outputs without a grid are skipped.

    Whether the winner is right is measured by vote_1, a fraction if several grids tie for the first place.
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
    """Draw one panel for each dataset and fully sampled model.

    Points with Wilson intervals show how often the winner is right, bars the share of test outputs in each bin.
    """
    from matplotlib.figure import Figure

    models = all_models(sections)
    sections = [section for section in sections if section.fully_sampled]
    counts = [len(section.fully_sampled) for section in sections]
    columns = min(_COLUMNS, max(*counts, 3))
    height = 0.2 + WIDTH / columns * 1.1 * panel_rows(counts, columns)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    groups = panel_groups(figure, counts, columns)
    for section, panels in zip(sections, groups, strict=True):
        for scores, panel in zip(section.fully_sampled, panels, strict=True):
            _draw_panel(panel, reliability(scores), look(models.index(scores.model)))
            panel.set_title(scores.model)
            panel.set_xlabel("share of votes won, %")
        panels[0].set_ylabel("winner is right, %" if len(sections) == 1 else f"{section.heading}\nwinner is right, %")
    return figure


def _draw_panel(panel: Axes, bins: Sequence[Bin], style: Look) -> None:
    panel.plot([0, 100], [0, 100], color="0.5", linewidth=0.8, linestyle="--")
    total = sum(b.outputs for b in bins)
    for b in bins:
        panel.bar(100 * b.share, 100 * b.outputs / total, width=7, color="0.85", zorder=0)
        panel.plot([100 * b.share] * 2, [100 * b.low, 100 * b.high], color=style.colour, linewidth=1.6)
    panel.plot(
        [100 * b.share for b in bins], [100 * b.right for b in bins], style.marker, color=style.colour, markersize=5
    )
    panel.set(xlim=(-5, 105), ylim=(-5, 105))

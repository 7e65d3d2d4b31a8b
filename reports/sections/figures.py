"""Write the sections that show pictures: the plots with how to read them, and the gallery of tasks."""

from __future__ import annotations

from collections.abc import Sequence

from reports.gallery.choose import GalleryTask
from reports.pictures import Pictures

_PLOTS = {
    "curves": (
        "More predictions",
        "Accuracy, pass and vote against the number of predictions",
        "The expected value over random subsets of k predictions, computed exactly; bands: intervals over tasks. "
        "Accuracy does not depend on k. The distance between pass@k and vote@k is what voting loses.",
    ),
    "differences": (
        "Differences",
        "Paired differences with their intervals against zero",
        "Filled marks: better or worse after Holm's correction; hollow marks: not resolved. A mark has no interval if "
        "too few tasks differ to compute one.",
    ),
    "costs": (
        "What a task costs",
        "Accuracy and vote_2 against the cost of a task",
        "Each mark is a model with its interval. The cost is a mean over tasks, of training at test time and of "
        "answering: in seconds, or with a price in dollars on a logarithmic axis.",
    ),
    "rates": (
        "Task by task",
        "Solve rate of every task, one model against another",
        "Each circle is the tasks at one place (its area grows with their number): the share of exact predictions of "
        "two models. Above the diagonal the model on the left axis is better.",
    ),
    "reliability": (
        "Can the vote be trusted?",
        "Share of the votes won against how often the winner is right",
        "Test outputs are binned by the share of all predictions that their most frequent grid has. Points: how often "
        "that grid is right, with Wilson's interval; grey bars: the share of test outputs in each bin. On the dashed "
        "line a winner is right as often as its share of the votes.",
    ),
    "losses": (
        "Training",
        "Loss of the benched adapters during training",
        "Running mean of the loss per training step; single marks: validation loss.",
    ),
}
"""For each kind of plot: its heading, its alternative text, and how to read it."""


def plots_section(pictures: Pictures) -> list[str]:
    """Return markdown with every plot that was drawn."""
    parts = ["## Pictures"]
    for kind, (heading, alternative, explanation) in _PLOTS.items():
        if pictures.has(kind):
            parts += [f"### {heading}", pictures.markdown(kind, alternative), explanation]
    return parts


def gallery_section(gallery: Sequence[GalleryTask], pictures: Pictures, several_datasets: bool) -> list[str]:
    """Return markdown with the picture of each task of the gallery and why it was chosen."""
    if not gallery:
        return []
    headlines = [scores.rule for entry in gallery for scores in entry.section.scored]
    shown = "best grids of each model by its rule" if any(headlines) else "most frequent grids of each model"
    parts = [
        "## Tasks worth a look",
        f"Train pairs, then for each test its input, the exact output (truth), and the {shown} "
        "with their votes: ✓ exact (heavy frame), ✗ with the number of wrong cells (outlined), or with the shape "
        "if that is wrong (dashed frame).",
    ]
    for entry in gallery:
        dataset = f" (`{entry.section.heading}`)" if several_datasets else ""
        parts += [f"### {entry.heading}", f"{entry.reason[0].upper()}{entry.reason[1:]}{dataset}."]
        parts.append(pictures.markdown(entry.picture, f"Task {entry.task.id} with predictions"))
    return parts

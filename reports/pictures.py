"""Draw every picture of a report and return the files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from reports.gallery.choose import GalleryTask
from reports.gallery.draw import task_picture
from reports.gallery.layout import lay_out_task
from reports.gallery.votes import top_grids
from reports.loading.prices import GpuPrice
from reports.loading.runs import Section, all_models
from reports.loading.training import Training
from reports.plots.costs import costs_figure, sections_with_costs
from reports.plots.curves import curves_figure
from reports.plots.differences import differences_figure
from reports.plots.intervals import intervals_figure
from reports.plots.losses import losses_figure
from reports.plots.rates import rate_pairs, rates_figure
from reports.plots.reliability import reliability_figure
from reports.plots.style import render, styled

GALLERY_DPI = 110


@dataclass(frozen=True)
class Pictures:
    """The picture files of a report by name: ``STEM-KIND.png``, and ``STEM-KIND.svg`` for plots."""

    files: dict[str, bytes]
    stem: str

    def has(self, kind: str) -> bool:
        """Return whether a picture of this kind was drawn."""
        return f"{self.stem}-{kind}.png" in self.files

    def markdown(self, kind: str, alternative: str) -> str:
        """Return the markdown of a picture, linked to its SVG if there is one.

        Args:
            alternative: text that describes the picture to those who cannot see it.
        """
        name = f"{self.stem}-{kind}"
        image = f"![{alternative}]({quote(name)}.png)"
        return f"[{image}]({quote(name)}.svg)" if f"{name}.svg" in self.files else image


def draw_pictures(
    stem: str,
    sections: Sequence[Section],
    gallery: Sequence[GalleryTask],
    trained: Mapping[str, Training],
    price: GpuPrice | None = None,
) -> Pictures:
    """Draw the pictures for which there is data.

    Args:
        stem: beginning of all file names.
        trained: training runs by model name.
        price: of a GPU, for the plot of costs.
    """
    files: dict[str, bytes] = {}
    with styled():
        files |= render(intervals_figure(sections), f"{stem}-intervals")
        if any(section.pairs for section in sections):
            files |= render(differences_figure(sections), f"{stem}-differences")
        if any(map(rate_pairs, sections)):
            files |= render(rates_figure(sections), f"{stem}-rates")
        if sections_with_costs(sections, price):
            files |= render(costs_figure(sections, price), f"{stem}-costs")
        if any(section.rated for section in sections):
            files |= render(curves_figure(sections), f"{stem}-curves")
        if any(section.fully_sampled for section in sections):
            files |= render(reliability_figure(sections), f"{stem}-reliability")
        if any(training.losses for training in trained.values()):
            files |= render(losses_figure(trained, all_models(sections)), f"{stem}-losses")
        for entry, tops in zip(gallery, top_grids(gallery), strict=True):
            picture = task_picture(lay_out_task(entry.task, tops))
            files |= render(picture, f"{stem}-{entry.picture}", vector=False, dpi=GALLERY_DPI)
    return Pictures(files, stem)

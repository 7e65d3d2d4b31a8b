"""Every picture of a report, drawn under one style."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from reports.gallery.choose import Shown
from reports.gallery.draw import task_picture
from reports.gallery.layout import lay_out_task
from reports.gallery.votes import gather_top
from reports.loading.runs import Section, all_models
from reports.loading.training import Training
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
    """What was drawn: the files by name, and the stems of the pictures that the report has."""

    files: dict[str, bytes]
    stem: str

    def has(self, kind: str) -> bool:
        """Whether there is a picture of that kind."""
        return f"{self.stem}-{kind}.png" in self.files

    def markdown(self, kind: str, words: str) -> str:
        """The picture in markdown, leading to its SVG where there is one; ``words`` say what it shows."""
        name = f"{self.stem}-{kind}"
        image = f"![{words}]({name}.png)"
        return f"[{image}]({name}.svg)" if f"{name}.svg" in self.files else image


def draw_pictures(
    stem: str, sections: Sequence[Section], shown: Sequence[Shown], trained: Mapping[str, Training]
) -> Pictures:
    """Draw everything that the runs give material for."""
    files: dict[str, bytes] = {}
    with styled():
        files |= render(intervals_figure(sections), f"{stem}-intervals")
        if any(section.pairs for section in sections):
            files |= render(differences_figure(sections), f"{stem}-differences")
        if any(map(rate_pairs, sections)):
            files |= render(rates_figure(sections), f"{stem}-rates")
        if any(section.rated for section in sections):
            files |= render(curves_figure(sections), f"{stem}-curves")
        if any(section.whole for section in sections):
            files |= render(reliability_figure(sections), f"{stem}-reliability")
        if any(training.losses for training in trained.values()):
            files |= render(losses_figure(trained, all_models(sections)), f"{stem}-losses")
        for entry, tops in zip(shown, gather_top(shown), strict=True):
            picture = task_picture(lay_out_task(entry.task, tops))
            name = f"{stem}-{task_kind(sections, entry)}"
            files |= render(picture, name, vector=False, dpi=GALLERY_DPI)
    return Pictures(files, stem)


def task_kind(sections: Sequence[Section], entry: Shown) -> str:
    """How the picture of a task is called in file names."""
    number = f"{sections.index(entry.section) + 1}-" if len(sections) > 1 else ""
    return f"task-{number}{re.sub(r'[^A-Za-z0-9._-]', '_', entry.task.id)}"

"""The style of all plots, and how to render a figure to the same bytes every time."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""The palette of Okabe and Ito, which colour-blind readers can distinguish."""
MARKERS = "osD^vPX"
LINES = ("-", "--", "-.", ":")
"""Markers and line styles distinguish the models in greyscale."""

WIDTH = 11.0
"""Width of every plot in inches."""
_STYLE: dict[str, object] = {
    "svg.hashsalt": "arc-bench",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "legend.frameon": False,
    "legend.handlelength": 2.8,
}


@dataclass(frozen=True, slots=True)
class Look:
    """Colour, marker and line style of one model in all plots of a report."""

    colour: str
    marker: str
    line: str


def look(index: int) -> Look:
    """Return the look of a model by its index from 0. Colour and marker together are unique up to 49 models."""
    return Look(COLOURS[index % 7], MARKERS[(index + index // 7) % 7], LINES[index % 4])


@contextmanager
def styled() -> Iterator[None]:
    """Use the report's matplotlib style within the context, whatever the user's settings."""
    from matplotlib import style

    with style.context(["default", _STYLE]):
        yield


def render(figure: Figure, stem: str, *, vector: bool = True, dpi: int = 130) -> dict[str, bytes]:
    """Render a figure and return the files by name: ``STEM.png``, and ``STEM.svg`` if ``vector``."""
    # No date or version in the files, so that the same figures give the same bytes.
    kinds: list[tuple[str, dict[str, None]]] = [("png", {"Software": None})]
    if vector:
        kinds.append(("svg", {"Date": None, "Creator": None}))
    files = {}
    # Compute the layout once for both formats: it takes longer than drawing.
    if figure.get_layout_engine() is not None:
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    for kind, metadata in kinds:
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=dpi, metadata=metadata)
        files[f"{stem}.{kind}"] = buffer.getvalue()
    return files


def legend(figure: Figure, panels: Sequence[Axes]) -> None:
    """Add one legend above all panels, with each label once."""
    entries: dict[str, Artist] = {}
    for panel in panels:
        handles, labels = panel.get_legend_handles_labels()
        entries.update(zip(labels, handles, strict=True))
    if entries:
        columns = min(len(entries), 6)
        figure.legend(list(entries.values()), list(entries), loc="outside upper center", ncols=columns)


def panel_rows(counts: Sequence[int], columns: int) -> int:
    """Return the number of rows for groups of panels if each group starts a new row of ``columns`` panels."""
    return sum(-(-count // columns) for count in counts)


def panel_groups(figure: Figure, counts: Sequence[int], columns: int) -> list[list[Axes]]:
    """Create square panels in groups. Each group starts a new row; the rest of its last row stays empty."""
    axes = iter(figure.subplots(panel_rows(counts, columns), columns, squeeze=False).ravel())
    groups = []
    for count in counts:
        row = [next(axes) for _ in range(-(-count // columns) * columns)]
        for panel in row[:count]:
            panel.set_box_aspect(1)
        for empty in row[count:]:
            empty.set_axis_off()
        groups.append(row[:count])
    return groups

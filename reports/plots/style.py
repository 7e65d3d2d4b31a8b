"""How every picture looks, and how it is written so that the same figures give the same bytes."""

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
"""Okabe and Ito's palette, which the colour-blind tell apart."""
MARKERS = "osD^vPX"
LINES = ("-", "--", "-.", ":")
"""Markers and line styles tell the models apart in grey."""

WIDTH = 11.0
"""Of every picture of numbers, in inches."""
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
    """How one model is drawn, in every picture of a report."""

    colour: str
    marker: str
    line: str


def look(index: int) -> Look:
    """The look of a report's model number ``index``; colour and marker together are its own up to 49 models."""
    return Look(COLOURS[index % 7], MARKERS[(index + index // 7) % 7], LINES[index % 4])


@contextmanager
def styled() -> Iterator[None]:
    """Draw and write under the report's own style, whatever the user's matplotlib settings."""
    from matplotlib import style

    with style.context(["default", _STYLE]):
        yield


def render(figure: Figure, stem: str, *, vector: bool = True, dpi: int = 130) -> dict[str, bytes]:
    """A figure as files by name: ``stem.png``, and with ``vector`` ``stem.svg``."""
    # Without date and version inside, so that the same figures give the same bytes.
    kinds: list[tuple[str, dict[str, None]]] = [("png", {"Software": None})]
    if vector:
        kinds.append(("svg", {"Date": None, "Creator": None}))
    files = {}
    # Once for all forms: working out where everything stands takes longer than drawing it.
    if figure.get_layout_engine() is not None:
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    for kind, metadata in kinds:
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=dpi, metadata=metadata)
        files[f"{stem}.{kind}"] = buffer.getvalue()
    return files


def legend(figure: Figure, panels: Sequence[Axes]) -> None:
    """One legend above all panels, each label once."""
    found: dict[str, Artist] = {}
    for panel in panels:
        handles, labels = panel.get_legend_handles_labels()
        found.update(zip(labels, handles, strict=True))
    if found:
        columns = min(len(found), 6)
        figure.legend(list(found.values()), list(found), loc="outside upper center", ncols=columns)


def panel_rows(counts: Sequence[int], columns: int) -> int:
    """Rows of ``columns`` panels that groups of panels take, each group beginning a row."""
    return sum(-(-count // columns) for count in counts)


def panel_groups(figure: Figure, counts: Sequence[int], columns: int) -> list[list[Axes]]:
    """Square panels in groups, each group beginning a new row; the rest of its last row stays empty."""
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

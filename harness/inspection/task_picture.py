"""Plots grids and tasks with matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from harness.core.errors import ConfigError
from harness.core.grid import COLOURS, Grid, Task
from harness.inspection.terminal_picture import PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ENDINGS = (".png", ".svg", ".pdf")
_LINE = "#555555"


def plot_grid(ax: Axes, grid: Grid) -> None:
    """Plot a grid into matplotlib axes: square cells in ARC's colours, thin lines between them, no ticks."""
    from matplotlib.colors import ListedColormap

    cmap = ListedColormap([tuple(part / 255 for part in colour) for colour in PALETTE])
    ax.imshow(grid.to_rows(), cmap=cmap, vmin=-0.5, vmax=COLOURS - 0.5, interpolation="nearest")
    width = min(0.6, 8 / max(grid.shape))
    for i in range(1, grid.height):
        ax.axhline(i - 0.5, color=_LINE, linewidth=width)
    for j in range(1, grid.width):
        ax.axvline(j - 0.5, color=_LINE, linewidth=width)
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_axis_on()
    for spine in ax.spines.values():
        spine.set_edgecolor(_LINE)


def task_figure(task: Task) -> Figure:
    """Return a figure with one column per pair, inputs above outputs. An unknown output is shown as a question mark."""
    from matplotlib.figure import Figure

    pairs = [(f"train {i}", pair) for i, pair in enumerate(task.train, 1)]
    pairs += [(f"test {i}", pair) for i, pair in enumerate(task.test, 1)]
    figure = Figure(figsize=(2.2 * len(pairs), 4.6), layout="constrained")
    axes = figure.subplots(2, len(pairs), squeeze=False)
    for (title, pair), above, below in zip(pairs, axes[0], axes[1], strict=True):
        for ax, grid in ((above, pair.input), (below, pair.output)):
            if grid is None:
                ax.set_axis_off()
                ax.text(0.5, 0.5, "?", ha="center", va="center", fontsize=24, transform=ax.transAxes)
                continue
            plot_grid(ax, grid)
            ax.set_xlabel(f"{grid.height}×{grid.width}", fontsize=7)
        above.set_title(title, fontsize=9)
    figure.suptitle(task.id, fontsize=10)
    return figure


def save_task_picture(task: Task, path: Path) -> None:
    """Write a picture of a task. Equal tasks give equal bytes.

    Raises:
        ConfigError: the file's suffix is not one of ENDINGS.
    """
    if path.suffix not in ENDINGS:
        raise ConfigError(f"{path}: a picture ends in one of {', '.join(ENDINGS)}")
    from matplotlib import rc_context

    metadata = {".png": {"Software": None}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    path.parent.mkdir(parents=True, exist_ok=True)
    with rc_context({"svg.hashsalt": "arc-bench"}):
        task_figure(task).savefig(path, dpi=110, metadata=metadata[path.suffix])

"""Format numbers and tables: shares with intervals, differences, p values, markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from harness.stats.paired_test import SIGNIFICANCE, Comparison
from harness.stats.recipes import RecipeComparison


class Bounded(Protocol):
    """A share in [0, 1] with the bounds of its interval."""

    @property
    def value(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


def percent(share: float) -> str:
    """Format a share: 0.133 as ``13.3 %``."""
    return f"{100 * share:.1f} %"


def with_interval(share: Bounded, mark: str = "") -> str:
    """Format a share with its interval, as ``13.3 % [11.1, 15.9]``; ``mark`` is a footnote mark after the value."""
    return f"{percent(share.value)}{mark} [{100 * share.low:.1f}, {100 * share.high:.1f}]"


def points(difference: float) -> str:
    """Format a difference of shares in percentage points with its sign: 0.012 as ``+1.2``."""
    return f"{100 * difference:+.1f}"


def difference_interval(comparison: Comparison | RecipeComparison) -> str:
    """Format the interval of a difference in percentage points, as ``[+1.2, +3.4]``, or say why there is none."""
    if comparison.low is None or comparison.high is None:
        return comparison.note
    return f"[{points(comparison.low)}, {points(comparison.high)}]"


def p_value(p: float) -> str:
    """Format a p value with three decimals; below 0.001 as ``< 0.001``, never as 0.

    One just below 0.05 has as many decimals as show that it is below, such as 0.0497.
    """
    if p < 0.001:
        return "< 0.001"
    decimals = 3
    while p < SIGNIFICANCE <= float(f"{p:.{decimals}f}"):
        decimals += 1
    return f"{p:.{decimals}f}"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Return a GitHub table, padded so that it can be read as plain text.

    Args:
        left: this many first columns are left-aligned, the others right-aligned.
    """
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in (header, *rows)]
    widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(header))]
    rule = [("-" * w) if i < left else ("-" * (w - 1) + ":") for i, w in enumerate(widths)]

    def line(row: Sequence[str]) -> str:
        padded = (c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        return "| " + " | ".join(padded) + " |"

    return "\n".join([line(cells[0]), line(rule), *map(line, cells[1:])])

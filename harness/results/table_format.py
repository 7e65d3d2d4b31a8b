"""How figures are written: shares with intervals, differences, p values, and markdown tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from harness.stats.paired_test import Comparison


class Bounded(Protocol):
    """A share with an interval."""

    @property
    def value(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...


def percent(share: float) -> str:
    """0.133 as ``13.3 %``."""
    return f"{100 * share:.1f} %"


def with_interval(found: Bounded, mark: str = "") -> str:
    """``13.3 % [11.1, 15.9]``, a footnote mark behind the value."""
    return f"{percent(found.value)}{mark} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def points(difference: float) -> str:
    """A difference of shares in percentage points with its sign."""
    return f"{100 * difference:+.1f}"


def difference_interval(found: Comparison) -> str:
    """``[+1.2, +3.4]``, or why there is none."""
    if found.low is None or found.high is None:
        return found.note
    return f"[{points(found.low)}, {points(found.high)}]"


def p_value(p: float) -> str:
    """Three decimals, never 0."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A GitHub table padded so that it also reads as text; the first ``left`` columns are left-aligned."""
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in (header, *rows)]
    widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(header))]
    rule = [("-" * w) if i < left else ("-" * (w - 1) + ":") for i, w in enumerate(widths)]

    def line(row: Sequence[str]) -> str:
        padded = (c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        return "| " + " | ".join(padded) + " |"

    return "\n".join([line(cells[0]), line(rule), *map(line, cells[1:])])

"""Results of benchmarks: this project against a peer, repetition by repetition, and growth of cost with size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isnan
from statistics import median
from typing import Any

import numpy as np

from harness.results.table_format import markdown_table


@dataclass(frozen=True)
class Finding:
    """A measured quantity of this project and of a peer or limit, from the same repetitions.

    Attributes:
        what: description of the quantity.
        unit: its unit.
        more_is_better: true for rates, false for times.
        memory: peak memory of this project's process and of the peer's in MB; None if it is not of interest.
        goal: required ratio to the peer.
        why: explanation from a profile, shown if this project is behind.
    """

    what: str
    unit: str
    ours: tuple[float, ...]
    peer: str
    theirs: tuple[float, ...]
    more_is_better: bool = False
    memory: tuple[float, float] | None = None
    goal: float | None = None
    why: str = ""

    @property
    def ahead(self) -> list[float] | None:
        """Return how many times better than the peer each repetition is; None if a value is 0 or missing (nan)."""
        pairs = list(zip(self.ours, self.theirs, strict=True))
        if any(0 in pair or isnan(sum(pair)) for pair in pairs):
            return None
        return [ours / theirs if self.more_is_better else theirs / ours for ours, theirs in pairs]

    def missed(self) -> str | None:
        """Return the missed goal in words, or None."""
        if self.goal is None or (ahead := self.ahead) is None or median(ahead) >= self.goal:
            return None
        return f"{self.what}: {median(ahead):.2f} times {self.peer}, where {self.goal:g} is wanted"

    def behind(self) -> str | None:
        """Return in words that this project is behind by more than 3 %, or None."""
        if (ahead := self.ahead) is None or median(ahead) >= BEHIND:
            return None
        return f"{self.what} beside {self.peer}: {median(ahead):.2f} times"

    def cells(self) -> list[str]:
        """Return a row of a table with the columns of HEADER."""
        ahead = self.ahead
        times = "–" if ahead is None else f"{short(median(ahead))} ({short(min(ahead))}–{short(max(ahead))})"
        memory = "" if self.memory is None else " / ".join(f"{value:,.0f}" for value in self.memory)
        ours, theirs = (
            f"{short(median(there))} {self.unit}" if (there := [value for value in values if not isnan(value)]) else "–"
            for values in (self.ours, self.theirs)
        )
        return [self.what, ours, self.peer, theirs, times, memory, str(len(self.ours))]


BEHIND = 0.97
"""Below so many times the peer, a difference is looked into."""
HEADER = ("", "this project", "beside", "its figure", "times ahead (least–most)", "peak memory (MB)", "repetitions")


@dataclass(frozen=True)
class Growth:
    """Median cost at several sizes."""

    what: str
    size: str
    """What the sizes count."""
    unit: str
    sizes: tuple[float, ...]
    costs: tuple[float, ...]

    @property
    def power(self) -> float:
        """Return the exponent p of cost = c·size^p, fitted by least squares in logarithms."""
        return float(np.polyfit(np.log(self.sizes), np.log(self.costs), 1)[0])

    @property
    def line(self) -> tuple[float, float]:
        """Return (a, b) of cost = a + b·size, fitted by least squares of the relative errors."""
        sizes, costs = np.array(self.sizes), np.array(self.costs)
        slope, start = np.polyfit(sizes, costs, 1, w=1 / costs)
        return float(start), float(slope)

    def cells(self) -> list[str]:
        """Return a row of a table with the columns of GROWTH_HEADER."""
        points = ", ".join(f"{short(size)}: {short(cost)}" for size, cost in zip(self.sizes, self.costs, strict=True))
        start, slope = self.line
        line = f"{short(start)} {'+' if slope >= 0 else '-'} {short(abs(slope))} a unit of size"
        return [self.what, f"{self.size}; {self.unit}", points, f"{self.power:.2f}", line]


GROWTH_HEADER = ("cost", "size; unit", "medians", "power of the size", "as a line")


def short(value: float) -> str:
    """Format a number with three significant digits, or all digits before the point if there are more."""
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def findings_table(findings: Sequence[Finding]) -> str:
    """Return the table of findings in markdown."""
    return markdown_table(HEADER, [finding.cells() for finding in findings])


def growth_table(growths: Sequence[Growth]) -> str:
    """Return the table of growth in markdown."""
    return markdown_table(GROWTH_HEADER, [growth.cells() for growth in growths])


def to_json(findings: Sequence[Finding], growths: Sequence[Growth]) -> dict[str, Any]:
    """Return findings and growths as JSON values."""
    return {"findings": [asdict(f) for f in findings], "growths": [asdict(g) for g in growths]}


def from_json(values: dict[str, Any]) -> tuple[list[Finding], list[Growth]]:
    """Return the findings and growths that ``to_json`` wrote."""
    findings = [
        Finding(**{name: tuple(value) if isinstance(value, list) else value for name, value in item.items()})
        for item in values["findings"]
    ]
    growths = [
        Growth(**{name: tuple(value) if isinstance(value, list) else value for name, value in item.items()})
        for item in values["growths"]
    ]
    return findings, growths

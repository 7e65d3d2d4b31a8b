"""What commands report to experiment trackers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandas import DataFrame

PROJECT = "arc-bench"
"""Name of the project or experiment under which trackers list the runs, unless the user sets another."""


@dataclass(frozen=True, slots=True)
class ReportedMetric:
    """A number, with the bounds of its interval where it has one."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class TrackerReport:
    """One run of a tracker: everything that a command reports about a model, a comparison or a sweep."""

    name: str
    command: str
    """The command of ``bench`` that reports, such as ``run``."""
    config: Mapping[str, Any]
    """Plain JSON values without secrets (``harness.trackers.redaction``)."""
    metrics: Mapping[str, ReportedMetric]
    tables: Mapping[str, DataFrame] = field(default_factory=dict)
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    """PNG files by name without the suffix."""
    links: Mapping[str, str] = field(default_factory=dict)
    """Addresses of what this report is based on, such as the training run, by a short name."""
    group: str | None = None
    """Name that related reports share, such as the run folder of several models."""
    folder: Path | None = None
    """Where trackers that write files put them; None for the current directory."""

    def scalars(self) -> dict[str, float]:
        """Return the metrics as numbers: ``vote_2``, ``vote_2/low`` and ``vote_2/high``; NaN is left out."""
        return dict(self._finite_scalars())

    def _finite_scalars(self) -> Iterator[tuple[str, float]]:
        for name, metric in self.metrics.items():
            for key, value in ((name, metric.value), (f"{name}/low", metric.low), (f"{name}/high", metric.high)):
                if value is not None and math.isfinite(value):
                    yield key, float(value)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested dictionaries as one, with keys such as ``model.prompt``; lists and other values stay."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, f"{name}.") if isinstance(value, Mapping) and value else {name: value}
    return flat

"""What a run costs in money: the price of its GPUs for as long as it took, divided among its models and tasks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime

from reports.loading.loaded_run import LoadedRun


@dataclass(frozen=True, slots=True)
class GpuPrice:
    """The price of an hour of one GPU, in dollars.

    Args:
        gpus: number of GPUs that served a run; None takes one per server that the run's manifest names.
    """

    hour: float
    gpus: int | None = None

    def used_gpus(self, run: LoadedRun) -> int:
        """Return the number of GPUs that served a run."""
        return self.gpus or len(run.manifest.servers)

    def task_cost(self, run: LoadedRun, model: str) -> float | None:
        """Return the dollars per task of a model of a run; None if they are unknown.

        The run's wall time is divided among its models by the seconds of their requests, as several models are served
        at the same time.
        """
        seconds, spent = wall_seconds(run), run.cost.get(model)
        total = math.fsum(cost.seconds for cost in run.cost.values())
        if seconds is None or spent is None or not total:
            return None
        return self.hour * self.used_gpus(run) * seconds / 3600 * spent.seconds / total / len(run.tasks)


def wall_seconds(run: LoadedRun) -> float | None:
    """Return how long a run took; None if it was interrupted or its times are unknown."""
    manifest = run.manifest
    if manifest.finished is None or manifest.resumed:
        return None
    seconds = (datetime.fromisoformat(manifest.finished) - datetime.fromisoformat(manifest.started)).total_seconds()
    return seconds if seconds > 0 else None


def dollars(amount: float) -> str:
    """Format an amount with two digits after its leading zeros, and cents at least: $12.30, $0.0045."""
    digits = 2 if amount <= 0 else max(2, 1 - math.floor(math.log10(amount)))
    return f"${amount:,.{digits}f}"

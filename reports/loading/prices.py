"""What a task costs in money: the price of a run's GPUs for the time that the task took."""

from __future__ import annotations

import math
from dataclasses import dataclass

from reports.loading.loaded_run import LoadedRun
from reports.loading.task_costs import task_cost


@dataclass(frozen=True, slots=True)
class GpuPrice:
    """The price of an hour of one GPU, in dollars.

    Args:
        gpus: number of GPUs of a run; None takes one per server that the run's manifest names.
    """

    hour: float
    gpus: int | None = None

    def used_gpus(self, run: LoadedRun) -> int:
        """Return the number of GPUs of a run."""
        return self.gpus or len(run.manifest.servers)

    def task_dollars(self, run: LoadedRun, model: str) -> float | None:
        """Return the dollars per task of a model of a run; None if they are unknown."""
        seconds = task_cost(run, model).total
        return None if seconds is None else self.hour * self.used_gpus(run) * seconds / 3600


def dollars(amount: float) -> str:
    """Format an amount with two digits after its leading zeros, and cents at least: $12.30, $0.0045."""
    digits = 2 if amount <= 0 else max(2, 1 - math.floor(math.log10(amount)))
    return f"${amount:,.{digits}f}"

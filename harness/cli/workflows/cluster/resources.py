"""What one training asks of a node, from the options, the recipe and the cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.cli.workflows.cluster.options import Placement
from harness.core.errors import ClusterError

_GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class NodeResources:
    """A living node, and all that it has; ``memory`` in bytes."""

    name: str
    cpus: float
    gpus: float
    memory: float


@dataclass(frozen=True, slots=True)
class TrainingResources:
    """What Ray reserves for one training; ``memory`` in bytes, 0 for none reserved."""

    cpus: float
    gpus: float
    memory: int

    def fit(self, node: NodeResources) -> int:
        """Return how many trainings fit on an idle node at once."""
        pairs = ((node.cpus, self.cpus), (node.gpus, self.gpus), (node.memory, self.memory))
        return min(int(present / needed + 1e-9) for present, needed in pairs if needed)

    def on_nodes(self, nodes: Sequence[NodeResources]) -> str:
        """Return such as ``4 at once on 2 nodes: 1 CPU for each``."""
        fits = [count for node in nodes if (count := self.fit(node))]
        return f"{sum(fits)} at once on {len(fits)} node{'s' * (len(fits) != 1)}: {self.as_text()} for each"

    def as_text(self) -> str:
        """Return such as ``2 CPUs, 1 GPU``."""
        parts = [f"{self.cpus:g} CPU{'s' * (self.cpus != 1)}"]
        parts += [f"{self.gpus:g} GPU{'s' * (self.gpus != 1)}"] if self.gpus else []
        parts += [f"{self.memory / _GIB:g} GiB"] if self.memory else []
        return ", ".join(parts)


def choose_resources(
    placement: Placement, nodes: Sequence[NodeResources], threads: int | None, processes: int = 1
) -> TrainingResources:
    """Return what each training gets, and check that a node has it.

    Without options a training gets one GPU per process if a node of the cluster has GPUs. It gets the recipe's
    ``threads`` per process; without ``threads`` one CPU per process beside GPUs, else all CPUs of the smallest node,
    because torch would use them.

    Args:
        threads: the recipe's.
        processes: how many processes train one adapter together.

    Raises:
        ClusterError: no node has so much, so that Ray would wait for ever.
    """
    gpus = placement.gpus
    if gpus is None:
        gpus = float(processes) if any(node.gpus for node in nodes) else 0.0
    cpus = placement.cpus
    if cpus is None and (threads is not None or gpus):
        cpus = float((threads or 1) * processes)
    elif cpus is None:
        cpus = min((node.cpus for node in nodes if node.cpus), default=1.0)
    needed = TrainingResources(cpus, gpus, round((placement.memory or 0) * _GIB))
    if not any(needed.fit(node) for node in nodes):
        present = "; ".join(
            TrainingResources(node.cpus, node.gpus, round(node.memory)).as_text() + f" on {node.name}"
            for node in nodes[:5]
        )
        raise ClusterError(
            f"no node has {needed.as_text()} for a training ({present}); give less with --cpus-per-training, "
            "--gpus-per-training or --memory-per-training, or start other nodes"
        )
    return needed

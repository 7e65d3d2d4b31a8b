"""The options of commands that can train on a cluster, and what they ask for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from harness.cli.workflows.cluster.address import OnOption, RayAddress
from harness.cli_options import FloatRange
from harness.core.errors import ConfigError

F = TypeVar("F", bound=Callable[..., Any])
_NAMES = ("cpus_per_training", "gpus_per_training", "memory_per_training")


@dataclass(frozen=True, slots=True)
class Placement:
    """Where trainings run, and what each of them gets. None chooses from the recipe (``resources.py``).

    Attributes:
        address: the cluster.
        cpus: CPU cores.
        gpus: GPUs; a fraction lets trainings share one.
        memory: main memory in GiB, of which Ray places no more on a node than it has.
    """

    address: RayAddress
    cpus: float | None = None
    gpus: float | None = None
    memory: float | None = None


_OPTIONS = (
    click.option("--on", type=OnOption(), help="Train on a Ray cluster: the running one, or that at an address."),
    click.option(
        "--cpus-per-training", type=FloatRange(0, min_open=True), help="With --on. Default: the recipe's threads."
    ),
    click.option(
        "--gpus-per-training", type=FloatRange(0), help="With --on. Default: one per process if nodes have GPUs."
    ),
    click.option(
        "--memory-per-training", type=FloatRange(0, min_open=True), metavar="GIB", help="With --on: GiB reserved."
    ),
)


def cluster_options(command: F) -> F:
    """Add ``--on`` and the resources of a training to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def take_placement(values: dict[str, Any]) -> Placement | None:
    """Remove the values of ``cluster_options`` from a command's values and return them; None to train here.

    Raises:
        ConfigError: a resource is given without ``--on``.
    """
    address = values.pop("on")
    cpus, gpus, memory = (values.pop(name) for name in _NAMES)
    if address is not None:
        return Placement(address, cpus, gpus, memory)
    for name, value in zip(_NAMES, (cpus, gpus, memory), strict=True):
        if value is not None:
            raise ConfigError(f"--{name.replace('_', '-')} is of trainings on a cluster; give --on ray too")
    return None

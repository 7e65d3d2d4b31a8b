"""Train the adapters of a sweep: here one after the other, one of them alone, or on a cluster."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import yaml

from harness.cli.workflows.steps import run_bench
from harness.cli.workflows.sweep.sweep_names import recipe_path
from harness.core.errors import ConfigError
from harness.core.files import write_atomically

if TYPE_CHECKING:
    from harness.cli.workflows.cluster.node import NodeWork, Outcome
    from harness.cli.workflows.cluster.options import Placement
    from harness.cli.workflows.sweep.sweep_file import Sweep
    from harness.cli.workflows.sweep.sweep_parts import AdapterTraining

LOGS = "logs"
"""Folder of a sweep with the output of trainings on a cluster, a file per adapter."""


def train_here(plan: Sweep, training: AdapterTraining) -> None:
    """Write the recipe of an adapter and train it, with torchrun if the sweep uses several processes."""
    run_bench("train", str(write_recipe(plan, training)), launcher=_launcher(plan))


def choose_row(plan: Sweep, row: int) -> AdapterTraining:
    """Return the adapter of a number, counted from 0 in the order of ``--dry-run``.

    Raises:
        ConfigError: the sweep has not so many.
    """
    trainings = list(plan.trainings())
    if row >= len(trainings):
        raise ConfigError(f"--row {row}: the sweep trains {len(trainings)} adapters, 0 to {len(trainings) - 1}")
    return trainings[row]


def train_on_cluster(plan: Sweep, placement: Placement) -> None:
    """Train all adapters on a Ray cluster, each as a task.

    A training that fails does not stop the others.

    Raises:
        click.exceptions.Exit: some failed; they are named. ClusterError: the cluster cannot be used.
    """
    from harness.cli.workflows.cluster.connection import connected
    from harness.cli.workflows.cluster.dispatch import dispatch
    from harness.cli.workflows.cluster.display import Board
    from harness.cli.workflows.cluster.node import run_training
    from harness.cli.workflows.cluster.resources import choose_resources

    trainings = list(plan.trainings())
    failed: dict[str, Outcome] = {}
    with connected(placement.address) as nodes:
        needed = choose_resources(placement, nodes, _threads(trainings), plan.processes)
        click.echo(f"{len(trainings)} adapters, {needed.on_nodes(nodes)}", err=True)
        works = [_work(plan, training) for training in trainings]
        with Board([work.name for work in works], "adapter") as board:
            for work, outcome in dispatch(works, run_training, needed, board):
                done = _checked(work, outcome)
                if done.status:
                    failed[work.name] = done
    if failed:
        _report_failures(plan, failed)


def write_recipe(plan: Sweep, training: AdapterTraining) -> Path:
    """Write the recipe of an adapter into the sweep's folder, and return the file."""
    path = recipe_path(plan.out, training.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, yaml.safe_dump(training.data, sort_keys=False).encode())
    return path


def _threads(trainings: Sequence[AdapterTraining]) -> int | None:
    """Return the most threads of the recipes; None if one leaves them to torch."""
    threads = [training.recipe.threads for training in trainings if training.recipe.threads is not None]
    return max(threads) if len(threads) == len(trainings) else None


def _launcher(plan: Sweep) -> list[str]:
    """Return the arguments of Python before the module."""
    if plan.processes == 1:
        return []
    return ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(plan.processes)]


def _work(plan: Sweep, training: AdapterTraining) -> NodeWork:
    """Write the recipe of an adapter, and return what a node needs to train it.

    With ``resume: false`` its folder is emptied here, once: on a node the training always resumes, as it may be the
    second to get it.
    """
    from harness.cli.workflows.cluster.node import NodeWork, code_versions, file_digest
    from trainers.store.run_folder import clear_folder, lock_folder

    path, output = write_recipe(plan, training).absolute(), Path(training.recipe.output_dir).absolute()
    more: tuple[str, ...] = ()
    if not training.recipe.resume:
        with lock_folder(output):
            clear_folder(output)
        more = ("--set", "resume=true")
    log = plan.out.absolute() / LOGS / f"{training.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    return NodeWork(
        name=training.name,
        directory=os.getcwd(),
        input=str(path),
        input_digest=file_digest(path),
        folder=str(output),
        log=str(log),
        versions=code_versions(),
        arguments=(*_launcher(plan), "-m", "harness.cli", "train", str(path), *more),
    )


def _checked(work: NodeWork, outcome: Outcome) -> Outcome:
    """Return an outcome, as a failure if the adapter is not in this machine's folder."""
    from harness.cli.workflows.cluster.node import Outcome, is_soon

    manifest = Path(work.folder) / "manifest.json"
    if outcome.status == 0 and not is_soon(manifest.exists):
        return Outcome(
            1, outcome.node, f"trained on {outcome.node}, but {manifest} is not on this machine; use a shared folder"
        )
    return outcome


def _report_failures(plan: Sweep, failed: dict[str, Outcome]) -> None:
    """Name the adapters that failed, and end with their status, or 1 if they differ."""
    for name, outcome in failed.items():
        where = f" on {outcome.node}" if outcome.node else ""
        click.echo(f"error: {name} failed{where}: {outcome.message} (log: {plan.out / LOGS / name}.log)", err=True)
    total = sum(1 for _ in plan.trainings())
    click.echo(f"\nstopped: {len(failed)} of {total} trainings failed; the same command resumes from here", err=True)
    statuses = {outcome.status for outcome in failed.values()}
    raise click.exceptions.Exit(statuses.pop() if len(statuses) == 1 else 1)

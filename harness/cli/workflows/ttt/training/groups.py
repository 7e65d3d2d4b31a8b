"""Train the tasks of a run on a cluster: groups of tasks, each in a folder of its own, whose adapters are then moved.

``RUN/groups/K`` has the recipe and the adapters of group K in training. A complete adapter is renamed to
``RUN/adapters``, where answering looks for it. What a killed command left in a group's folder is moved by the next.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from math import ceil
from pathlib import Path
from time import time

import click

from harness.cli.workflows.cluster.connection import connected
from harness.cli.workflows.cluster.dispatch import dispatch
from harness.cli.workflows.cluster.display import Board
from harness.cli.workflows.cluster.node import code_versions, file_digest, is_soon
from harness.cli.workflows.cluster.options import Placement
from harness.cli.workflows.cluster.resources import choose_resources
from harness.cli.workflows.ttt.job import TttJob
from harness.cli.workflows.ttt.training.group_node import GroupWork, train_group
from harness.core.deadline import Deadline
from harness.core.digests import content_hash
from harness.core.errors import DeadlineError, RunError
from harness.core.grid import Task
from trainers.run.api import open_checked
from trainers.store.run_folder import lock_when_free
from trainers.ttt.adapter_folder import find_adapter, inputs_digest
from trainers.ttt.protocol import ADAPTERS, RECIPE_FILE, ReplyLine, TaskLine, adapter_path, read_recipe

GROUPS = "groups"
"""Folder of a run in which groups of tasks are trained."""
_GROUPS_AT_ONCE = 2
"""Groups for each training that fits on the cluster at once: enough that none waits long for the last."""
_LOCK_SECONDS = 180.0


def train_on_cluster(
    job: TttJob,
    placement: Placement,
    tasks: Sequence[Task],
    show: Callable[[Task, ReplyLine], None],
) -> dict[str, ReplyLine]:
    """Train tasks on a cluster, and return the reply for each by its id, as the trainer of this machine gives it.

    Args:
        show: called with every reply.

    Raises:
        DeadlineError: the run's deadline passed. RunError: a group failed; the adapters of all others are kept.
        ClusterError: the cluster cannot be used.
    """
    replies = _trained_before(job, tasks)
    missing = [task for task in tasks if task.id not in replies]
    if not missing:
        return replies
    failed: list[str] = []
    with connected(placement.address) as nodes:
        needed = choose_resources(placement, nodes, job.options.recipe.threads)
        at_once = sum(needed.fit(node) for node in nodes)
        works = _groups(job, missing, at_once)
        click.echo(f"{len(missing)} tasks in {len(works)} groups, {needed.on_nodes(nodes)}", err=True)
        by_id = {task.id: task for task in missing}
        with Board([work.name for work in works], "group") as board:
            for work, outcome in dispatch(works, train_group, needed, board):
                if outcome.status:
                    failed.append(f"{work.name} on {outcome.node or 'no node'}: {outcome.message} (log: {work.log})")
                for line in outcome.lines:
                    reply = ReplyLine.model_validate_json(line)
                    _take_adapter(job.out, Path(work.folder).parent, reply)
                    replies[reply.task_id] = reply
                    show(by_id[reply.task_id], reply)
    if failed:
        raise RunError(
            f"{len(failed)} of {len(works)} groups failed; --resume trains what is missing. {'; '.join(failed)}"
        )
    collect_groups(job.out)
    if len(replies) < len(tasks):
        raise DeadlineError("the deadline (--deadline) passed before all tasks were trained")
    return replies


def collect_groups(out: Path) -> None:
    """Move the complete adapters of all groups to the run's, and remove the groups' folders.

    Raises:
        RunError: a group is still trained.
    """
    for folder in sorted((out / GROUPS).glob("*")):
        with lock_when_free(folder / ADAPTERS, _LOCK_SECONDS):
            for adapter in sorted((folder / ADAPTERS).iterdir()):
                if not adapter.name.startswith("."):
                    _move(adapter, out / ADAPTERS / adapter.name)
        shutil.rmtree(folder)
    with suppress(OSError):  # there is none, or it has files of somebody else
        (out / GROUPS).rmdir()


def _trained_before(job: TttJob, tasks: Sequence[Task]) -> dict[str, ReplyLine]:
    """Return the replies for tasks whose adapters exist."""
    existing = [task for task in tasks if job.adapter(task).exists()]
    if not existing:
        return {}
    inputs = open_checked(read_recipe(job.out), None)
    found = {task.id: find_adapter(job.out, task.id, inputs_digest(inputs, task.id, task.train)) for task in existing}
    return {task_id: reply for task_id, reply in found.items() if reply is not None}


def _groups(job: TttJob, tasks: Sequence[Task], at_once: int) -> list[GroupWork]:
    """Divide tasks into groups of nearly equal size, and write the folder of each."""
    size = job.options.tasks_per_group or max(1, ceil(len(tasks) / (_GROUPS_AT_ONCE * max(1, at_once))))
    parts = [tasks[start : start + size] for start in range(0, len(tasks), size)]
    versions = code_versions()
    return [_group(job, k, part, versions) for k, part in enumerate(parts)]


def _group(job: TttJob, number: int, tasks: Sequence[Task], versions: Mapping[str, str]) -> GroupWork:
    """Write the folder of a group, and return what a node needs to train it."""
    folder = (job.out / GROUPS / f"{number:04}").absolute()
    (folder / ADAPTERS).mkdir(parents=True, exist_ok=True)
    recipe = Path(shutil.copyfile(job.out / RECIPE_FILE, folder / RECIPE_FILE))
    lines = [TaskLine.of(task, seconds=job.options.task_deadline) for task in tasks]
    return GroupWork(
        name=f"{tasks[0].id}" if len(tasks) == 1 else f"{tasks[0].id} … {tasks[-1].id} ({len(tasks)} tasks)",
        directory=os.getcwd(),
        input=str(recipe),
        input_digest=file_digest(recipe),
        folder=str(folder / ADAPTERS),
        log=str(folder / "group.log"),
        versions=versions,
        tasks=tuple(line.model_dump_json(exclude_defaults=True) for line in lines),
        until=_time_of(job.options.training_deadline),
        abandoned=_time_of(job.options.deadline),
    )


def _time_of(deadline: Deadline | None) -> float | None:
    """Return a deadline as ``time.time()``; None without one."""
    return None if deadline is None else time() + deadline.seconds_left


def _take_adapter(out: Path, group: Path, reply: ReplyLine) -> None:
    """Move the adapter of a reply from its group to the run.

    Raises:
        RunError: it is not in this machine's folder, or is another one there.
    """
    if reply.adapter is None:
        return
    source, target = adapter_path(group, reply.task_id), adapter_path(out, reply.task_id)
    if not is_soon(lambda: source.is_dir() and content_hash(source) == reply.digest):
        raise RunError(f"{source} is not what its node wrote; --out must be in a folder that all nodes share")
    _move(source, target)


def _move(source: Path, target: Path) -> None:
    """Rename an adapter folder; remove it if the run has the task's adapter already."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        shutil.rmtree(source)
    else:
        source.rename(target)

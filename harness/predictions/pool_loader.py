"""Read the folder of a pool: its tasks, and the predictions of its members."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.candidates.pool_folder import PoolFolder
from harness.candidates.pool_schema import CandidateRecord, PoolManifest
from harness.core.errors import DataError, GridError
from harness.core.grid import Grid, Task
from harness.data.dataset import iterate_tasks
from harness.data.spec import open_dataset
from harness.predictions.declared_tasks import check_same_tasks, check_unchanged, select_tasks
from harness.predictions.pooled_outputs import MemberPredictions
from harness.runs.schemas.prediction_schema import OutputKey
from harness.voting.ranking import Vote


@dataclass(frozen=True, slots=True)
class OpenPool:
    """The content of a pool."""

    folder: PoolFolder
    manifest: PoolManifest
    tasks: list[Task]
    members: list[MemberPredictions]
    """In the order of the manifest."""


def open_pool(folder: PoolFolder, spec: str | None = None) -> OpenPool:
    """Read a pool.

    Args:
        spec: a dataset that replaces the pool's own.

    Raises:
        RunError, DataError: a file is missing or damaged, with the line; or the dataset has changed, or lacks a task.
    """
    manifest = folder.manifest()
    digests = dict(zip(manifest.task_ids, manifest.task_digests, strict=True))
    if spec is None:
        tasks = select_tasks(open_dataset(manifest.dataset), manifest.task_ids)
        check_unchanged(manifest.dataset, tasks, digests, "pool")
    else:
        tasks = list(iterate_tasks(open_dataset(spec)))
        check_same_tasks(folder.path, digests, tasks, spec)
    return OpenPool(folder, manifest, tasks, read_members(folder, manifest, tasks))


def read_members(folder: PoolFolder, manifest: PoolManifest, tasks: Sequence[Task]) -> list[MemberPredictions]:
    """Return the predictions of every member.

    Raises:
        DataError: a line is damaged, repeats a candidate, or is of an output that the tasks lack; with its number.
    """
    outputs = {task.id: len(task.test) for task in tasks}
    votes: list[dict[OutputKey, list[Vote]]] = [{} for _ in manifest.members]
    seen: set[tuple[str, int, Grid]] = set()
    for where, record in folder.candidates(manifest):
        grid = _grid(record, where)
        if record.test_index >= outputs.get(record.task_id, 0):
            raise DataError(f"{where}: task {record.task_id}, test {record.test_index}, which the dataset lacks")
        if (key := (record.task_id, record.test_index, grid)) in seen:
            raise DataError(f"{where}: repeats a candidate of task {record.task_id}, test {record.test_index}")
        seen.add(key)
        for p in record.proposals:
            vote = Vote(grid, p.mean_logprob, p.logprob, p.symmetry, p.sample, p.view)
            votes[p.member].setdefault((record.task_id, record.test_index), []).append(vote)
    return [MemberPredictions(member, by_key) for member, by_key in zip(manifest.members, votes, strict=True)]


def _grid(record: CandidateRecord, where: str) -> Grid:
    try:
        return Grid.from_rows(record.grid, f"{where}, grid", long_rows=True)
    except GridError as error:
        raise DataError(str(error)) from None

"""Merge the predictions of runs, pools and files into a pool: its manifest, and its candidates with their proposals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from harness.candidates.pool_schema import CandidateRecord, PoolManifest, Proposal
from harness.core.grid import Grid, Task
from harness.data.dataset import content_digest, iterate_tasks
from harness.data.spec import open_dataset
from harness.pools.pool_members import FILE_SPACE, read_pool_members, shared_dataset
from harness.predictions.pooled_outputs import MemberPredictions
from harness.runs.environment import describe_environment, now


@dataclass(frozen=True, slots=True)
class NewPool:
    """A pool that is not written yet."""

    manifest: PoolManifest
    """Without the number and the digest of the candidates."""
    tasks: list[Task]
    members: list[MemberPredictions]
    notes: list[str]
    """Members that were left out, because they have the predictions of another."""

    def candidates(self) -> Iterator[CandidateRecord]:
        """Yield every candidate, by task, test output, shape and cells."""
        for task in self.tasks:
            for index in range(len(task.test)):
                proposals = _proposals(self.members, task.id, index)
                for grid in sorted(proposals, key=lambda grid: (grid.height, grid.width, grid.cells)):
                    yield CandidateRecord(
                        task_id=task.id, test_index=index, grid=grid.to_rows(), proposals=proposals[grid]
                    )


def build_pool(names: Sequence[str], spec: str | None = None) -> NewPool:
    """Return the pool of all predictions that the names mean.

    Args:
        names: each ``RUN``, ``RUN@MODEL``, a pool, or a file in a format of harness.predictions.files.
        spec: the dataset of the tasks; None takes that of the runs.

    Raises:
        ConfigError: files need ``spec``, or the runs' datasets have no common one.
        RunError, DataError: a name is no run, pool or file; a file is damaged; or a member answers other tasks.
    """
    spec = shared_dataset(names) if spec is None else spec
    dataset = open_dataset(spec)
    tasks, digest = list(iterate_tasks(dataset)), dataset.digest()
    members, notes = distinct_members([member for name in names for member in read_pool_members(name, spec, digest)])
    seeds = [member.record.seed for member in members if member.record.seed is not None]
    manifest = PoolManifest(
        format=1,
        kind="pool",
        members=[member.record for member in members],
        dataset=spec,
        dataset_digest=digest,
        task_ids=[task.id for task in tasks],
        task_digests=[content_digest(task) for task in tasks],
        seed=min(seeds, default=0),
        candidates=0,
        candidates_sha256="",
        environment=describe_environment(),
        created=now(),
    )
    return NewPool(manifest, tasks, members, notes)


def distinct_members(members: Sequence[MemberPredictions]) -> tuple[list[MemberPredictions], list[str]]:
    """Return the members without those that have the predictions of another, with unique names, sorted by digest.

    A copy of a run's predictions in a file counts as the run, whose views are known. The result does not depend on
    the order of the members.

    Returns:
        The members, and a note for each that was left out.
    """
    kept: dict[tuple[str, str], MemberPredictions] = {}
    notes = []
    for member in sorted(members, key=_preference):
        record = member.record
        same = kept.get((record.digest, record.view_space))
        if same is None and record.view_space.startswith(FILE_SPACE):
            same = next((other for other in kept.values() if other.record.digest == record.digest), None)
        if same is None:
            kept[record.digest, record.view_space] = member
        else:
            notes.append(f"{record.path} ({record.model}) has the predictions of {same.record.name}: one member")
    return _with_unique_names([kept[key] for key in sorted(kept)]), notes


def _preference(member: MemberPredictions) -> tuple[object, ...]:
    """Return the key by which the first of equal members is kept: runs before files, then by name."""
    record = member.record
    return record.view_space.startswith(FILE_SPACE), -record.views, -record.n, record.name, record.path, record.model


def _with_unique_names(members: Sequence[MemberPredictions]) -> list[MemberPredictions]:
    """Return the members; those that share a name are named by their paths, or else get their digest."""
    names = [member.record.name for member in members]
    for longer in ("{path}@{model}", "{path}@{model} {digest:.8} {view_space}"):
        counts = Counter(names)
        names = [
            name if counts[name] == 1 else longer.format(**member.record.model_dump())
            for name, member in zip(names, members, strict=True)
        ]
    return [
        replace(member, record=member.record.model_copy(update={"name": name}))
        for name, member in zip(names, members, strict=True)
    ]


def _proposals(members: Sequence[MemberPredictions], task: str, index: int) -> dict[Grid, list[Proposal]]:
    """Return the proposals of each candidate of a test output, by member and sample."""
    proposals: dict[Grid, list[Proposal]] = {}
    for number, member in enumerate(members):
        for vote in sorted(member.votes.get((task, index), ()), key=lambda vote: vote.sample):
            proposal = Proposal(
                member=number,
                view=vote.view_index,
                sample=vote.sample,
                symmetry=vote.view,
                logprob=vote.sum_logprob,
                mean_logprob=vote.mean_logprob,
            )
            proposals.setdefault(vote.grid, []).append(proposal)
    return proposals

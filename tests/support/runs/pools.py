"""Pools of made-up runs and files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.candidates.pool_folder import PoolFolder
from harness.candidates.pool_schema import PoolMember
from harness.core.grid import Grid
from harness.data.dataset import iterate_tasks
from harness.data.spec import open_dataset
from harness.pools.pool_building import build_pool
from harness.predictions.pooled_outputs import MemberPredictions
from harness.runs.schemas.prediction_schema import OutputKey
from harness.voting.ranking import Vote
from tests.support.runs.run_folders import wrong_grid


def make_pool(out: Path, *names: object, dataset: str | None = None) -> Path:
    """Write the pool of these runs and files, and return its folder."""
    new = build_pool([str(name) for name in names], dataset)
    PoolFolder(out).write(new.manifest, new.candidates())
    return out


def pool_member(
    votes: Mapping[OutputKey, Sequence[Vote]], space: str = "seed 0", views: int = 8, name: str = "m", digest: str = "d"
) -> MemberPredictions:
    """Return a member with these votes."""
    record = PoolMember(
        name=name,
        path=name,
        form="run",
        model=name,
        digest=digest,
        dataset="toy/cross",
        dataset_digest="d",
        seed=0,
        n=views,
        views=views,
        view_space=space,
        names_views=True,
        settings=None,
        chat_template_kwargs={},
        warnings=[],
    )
    return MemberPredictions(record, votes)


def write_submission(path: Path, spec: str, right: int) -> Path:
    """Write a submission whose first attempts are exact for the first ``right`` tasks, and other grids else."""
    content = {}
    for number, task in enumerate(iterate_tasks(open_dataset(spec))):
        attempts = []
        for pair in task.test:
            assert pair.output is not None
            grids: list[Grid] = [pair.output if number < right else wrong_grid(pair.output, 5)]
            grids.append(wrong_grid(pair.output, 6))
            attempts.append({f"attempt_{k}": grid.to_rows() for k, grid in enumerate(grids, 1)})
        content[task.id] = attempts
    path.write_text(json.dumps(content))
    return path

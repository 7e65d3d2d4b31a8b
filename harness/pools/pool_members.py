"""Read what is to be pooled: models of runs, other pools, and files in any format."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.candidates.pool_folder import PoolFolder, is_pool
from harness.candidates.pool_schema import PoolMember
from harness.core.errors import ConfigError, RunError, format_ids
from harness.data.dataset import content_digest, iterate_tasks
from harness.data.spec import open_dataset
from harness.predictions.pooled_outputs import MemberPredictions
from harness.predictions.prediction_groups import UNNAMED, ModelPredictions
from harness.predictions.saved_folder import RUN
from harness.runs.folder import RunFolder
from harness.runs.schemas.manifest_schema import Manifest, RunConfig
from harness.runs.schemas.prediction_schema import OutputKey
from harness.scoring.matched_runs import unfinished_warnings
from harness.scoring.prediction_loader import SavedPredictions, open_predictions
from harness.scoring.run_selector import split_run_name
from harness.voting.ranking import Vote

FILE_SPACE = "file "
"""How the view space of a file begins; its views are shared with no other member."""
UNAUGMENTED = "unaugmented"
"""The view space of runs without augmentation: one view, whatever the seed."""


def shared_dataset(names: Sequence[str]) -> str:
    """Return the spec of the dataset that has the tasks of all runs and pools.

    Raises:
        ConfigError: there is no run or pool, or none of their datasets has the tasks of all others.
    """
    specs = list(dict.fromkeys(spec for name in names if (spec := _recorded_dataset(_locate(name)[0])) is not None))
    if not specs:
        raise ConfigError("files do not say which tasks they answer; name them with --dataset, such as arc1/evaluation")
    if len(specs) == 1:
        return specs[0]
    digests = {spec: {task.id: content_digest(task) for task in iterate_tasks(open_dataset(spec))} for spec in specs}
    for spec, by_id in sorted(digests.items()):
        if all(other.items() <= by_id.items() for other in digests.values()):
            return spec
    raise ConfigError(
        f"the runs have different datasets ({', '.join(specs)}), none of which has the tasks of all; name one that has "
        "with --dataset"
    )


def read_pool_members(name: str, spec: str, dataset_digest: str) -> list[MemberPredictions]:
    """Return the predictions of every model that a name means.

    Args:
        name: ``RUN``, ``RUN@MODEL``, a pool, ``POOL@MEMBER``, or a file.
        spec: the dataset of the tasks.
        dataset_digest: its digest.

    Raises:
        RunError: there is no such file, run, pool, model or member.
        DataError: the file is damaged, or answers other tasks.
        ConfigError: a run with ``--until-resolved`` did not reach all tasks.
    """
    path, model = _locate(name)
    saved = open_predictions(path, None if _recorded_dataset(path) == spec else spec)
    if saved.sequential is not None and saved.sequential.not_reached:
        raise ConfigError(
            f"{path} was sampled with --until-resolved and did not reach {len(saved.sequential.not_reached)} tasks, "
            "which a pool would count as wrong; sample its models without that option"
        )
    members = _pool_members(saved) if saved.pool is not None else _members(path, saved, spec, dataset_digest)
    chosen = [member for member in members if model in (None, member.record.model, member.record.name)]
    if not chosen:
        known = ", ".join(member.record.name if saved.pool is not None else member.record.model for member in members)
        raise RunError(f"{path} has no model {model!r}; it has: {known}")
    return chosen


def predictions_digest(votes: Mapping[OutputKey, Sequence[Vote]]) -> str:
    """Return 32 hex digits that identify predictions, whatever their order."""
    lines = sorted(
        "\0".join(
            (task, str(index), str(v.sample), str(v.grid.height), v.grid.cells.hex(), v.view,
             _exact(v.sum_logprob), _exact(v.mean_logprob))
        )
        for (task, index), group in votes.items()
        for v in group
    )  # fmt: skip
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def _locate(name: str) -> tuple[Path, str | None]:
    """Return the path that a name means, and the model if it names one; raise RunError if there is no such path."""
    path, model = (Path(name), None) if Path(name).exists() else split_run_name(name)
    if not path.exists():
        raise RunError(f"{name}: there is no such run, pool or file")
    return path, model


def _recorded_dataset(path: Path) -> str | None:
    """Return the spec of the dataset that a run or pool records; None for a file."""
    folder = path.parent if path.name in ("predictions.jsonl", "candidates.jsonl") else path
    if is_pool(folder):
        return PoolFolder(folder).manifest().dataset
    return RunFolder(folder).manifest().config.dataset if RunFolder(folder).manifest_path.is_file() else None


def _pool_members(saved: SavedPredictions) -> list[MemberPredictions]:
    """Return the members of a pool, as they are."""
    assert saved.pool is not None
    return saved.pool.members


def _members(path: Path, saved: SavedPredictions, spec: str, dataset_digest: str) -> list[MemberPredictions]:
    """Return the predictions of every model of a run or file."""
    folder = RunFolder(path.parent if path.name == "predictions.jsonl" else path)
    manifest = folder.manifest() if saved.form == RUN else None
    base = path.resolve() if manifest is None else folder.path.resolve()
    members = []
    for predictions in saved.predictions:
        votes = _votes(predictions)
        digest = predictions_digest(votes)
        space = _file_space(digest, predictions, saved.n) if manifest is None else _run_space(manifest.config)
        record = PoolMember(
            name=base.name if predictions.model == UNNAMED else f"{base.name}@{predictions.model}",
            path=str(path),
            form=saved.form,
            model=predictions.model,
            digest=digest,
            dataset=spec,
            dataset_digest=dataset_digest,
            seed=None if manifest is None else manifest.config.seed,
            n=saved.n,
            views=space.views,
            view_space=space.name,
            names_views=predictions.has_views,
            settings=None
            if manifest is None
            else next(m for m in manifest.config.models if m.name == predictions.model),
            chat_template_kwargs={} if manifest is None else manifest.config.chat_template_kwargs,
            warnings=_warnings(folder, manifest, saved, predictions),
        )
        placed = {
            key: [replace(vote, view_index=space.view_of(vote)) for vote in group] for key, group in votes.items()
        }
        members.append(MemberPredictions(record, placed))
    return members


@dataclass(frozen=True, slots=True)
class _ViewSpace:
    """The views under which a member was prompted."""

    name: str
    views: int
    view_of: Callable[[Vote], int]
    """Returns the index of a vote's view."""


def _run_space(config: RunConfig) -> _ViewSpace:
    """Return the views of a run: the augmentations of its seed, or the one view of a run without augmentation."""
    if not config.augment:
        return _ViewSpace(UNAUGMENTED, 1, lambda vote: 0)
    return _ViewSpace(f"seed {config.seed}", -(-config.n // config.samples_per_view), lambda vote: vote.view_index)


def _file_space(digest: str, predictions: ModelPredictions, n: int) -> _ViewSpace:
    """Return the views of a file: each prediction of a test output is a separate view."""
    last = max(output.last_sample for outputs in predictions.outputs.values() for output in outputs)
    return _ViewSpace(f"{FILE_SPACE}{digest}", max(n, last + 1), lambda vote: vote.sample)


def _votes(predictions: ModelPredictions) -> dict[OutputKey, list[Vote]]:
    """Return the votes by task and test output; log-probabilities that are not finite count as unknown."""
    votes: dict[OutputKey, list[Vote]] = {}
    for task, outputs in predictions.outputs.items():
        for index, output in enumerate(outputs):
            if output.votes_by_grid:
                votes[task, index] = [
                    replace(vote, sum_logprob=_finite(vote.sum_logprob), mean_logprob=_finite(vote.mean_logprob))
                    for vote in output.votes()
                ]
    return votes


def _warnings(
    folder: RunFolder, manifest: Manifest | None, saved: SavedPredictions, predictions: ModelPredictions
) -> list[str]:
    """Return what is missing from a member."""
    warnings = [] if manifest is None else unfinished_warnings({folder.path: manifest})
    if saved.schedule is not None:
        warnings.append(f"stopped early ({saved.schedule.stop}); candidates that were not drawn are not in the pool")
    failures = {kind: count for kind, count in predictions.failures.items() if count}
    if manifest is None and failures:
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(failures.items()))
        warnings.append(f"{sum(failures.values())} of its predictions are no grids and are not in the pool ({kinds})")
    if missing := predictions.missing:
        warnings.append(f"of {len(saved.tasks)} tasks {format_ids(missing)} have no prediction and count as wrong")
    return warnings


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _exact(value: float | None) -> str:
    """Return every digit of a number."""
    return "" if value is None else value.hex()

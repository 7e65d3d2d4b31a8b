"""What ``bench rescore`` needs of saved predictions: candidates, tasks, seed, and the settings of their models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from pydantic import JsonValue

from harness.candidates.pool_folder import PoolFolder, is_pool
from harness.candidates.rescore_plan import Candidates
from harness.candidates.rescores import RESCORES_FILE, RescoreHeader
from harness.core.errors import ConfigError
from harness.core.grid import Grid, Task
from harness.predictions.declared_tasks import declared_tasks
from harness.predictions.pool_loader import OpenPool, open_pool
from harness.predictions.pooled_outputs import pooled_predictions
from harness.predictions.prediction_groups import ModelPredictions, OutputPredictions
from harness.predictions.run_predictions import read_run_predictions
from harness.runs.folder import RunFolder
from harness.runs.schemas.manifest_schema import Manifest, ModelConfig
from harness.runs.schemas.prediction_schema import OutputKey
from harness.voting.ranking import rank_votes


@dataclass(frozen=True)
class RescoreSource:
    """Candidates to rescore.

    Args:
        folder: where rescores.jsonl is.
        dataset: spec of the dataset.
        seed: the run's seed, from which the fixed views are drawn.
        date: the date (ISO 8601) that a scorer's chat template gets if it writes one and the run fixed none.
        models: the settings with which the run prompted its models; a scorer that is one of them keeps them.
        chat_template_kwargs: variables of the chat template that the run set for all models.
        warnings: for the user.
    """

    folder: Path
    tasks: Sequence[Task]
    dataset: str
    dataset_digest: str
    seed: int
    predictions_sha256: str
    candidates: Candidates
    date: str
    models: tuple[ModelConfig, ...] = ()
    chat_template_kwargs: Mapping[str, JsonValue] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """The file of rescores."""
        return self.folder / RESCORES_FILE

    def header(self, views: int) -> RescoreHeader:
        """Return the first line of a new file of rescores."""
        return RescoreHeader(
            run=self.dataset_digest, seed=self.seed, views=views, predictions_sha256=self.predictions_sha256
        )


def open_rescore_source(path: Path) -> RescoreSource:
    """Return the candidates of a pool, or of a run folder, drawn or enumerated.

    Raises:
        ConfigError: the path is neither. DataError, RunError: a file of it is missing or damaged.
    """
    if is_pool(path):
        return pool_source(open_pool(PoolFolder(path)))
    if not (path / "manifest.json").is_file():
        raise ConfigError(f"{path}: has no manifest.json; give the folder of a run or pool")
    folder = RunFolder(path)
    manifest = folder.manifest()
    tasks = declared_tasks(manifest)
    config = manifest.config
    return RescoreSource(
        folder=path,
        tasks=tasks,
        dataset=config.dataset,
        dataset_digest=config.dataset_digest,
        seed=config.seed,
        predictions_sha256=folder.predictions_sha256(),
        candidates=candidates_of(read_run_predictions(folder, manifest, tasks)),
        date=datetime.fromisoformat(manifest.started).date().isoformat(),
        models=tuple(config.models),
        chat_template_kwargs=config.chat_template_kwargs,
        warnings=_unfinished(path, manifest),
    )


def pool_source(pool: OpenPool) -> RescoreSource:
    """Return the candidates of a pool, as those of one model named ``pool``.

    A scorer that is a member has the settings of its run, unless two runs prompted it differently.
    """
    manifest = pool.manifest
    predictions = pooled_predictions(pool.members, {task.id: len(task.test) for task in pool.tasks})
    runs = [member for member in manifest.members if member.settings is not None]
    common = runs[0].chat_template_kwargs if runs else {}
    configs: dict[str, ModelConfig] = {}
    warnings: dict[str, str] = {}
    for member in runs:
        assert member.settings is not None
        variables = {**member.settings.chat_template_kwargs, **member.chat_template_kwargs}
        config = member.settings.model_copy(update={"chat_template_kwargs": variables})
        if configs.setdefault(config.name, config) != config:
            warnings[config.name] = (
                f"the pool's runs prompted {config.name} in different ways: as a scorer it has the settings of its "
                "server"
            )
    return RescoreSource(
        folder=pool.folder.path,
        tasks=pool.tasks,
        dataset=manifest.dataset,
        dataset_digest=manifest.dataset_digest,
        seed=manifest.seed,
        predictions_sha256=manifest.candidates_sha256,
        candidates=candidates_of([predictions]),
        date=datetime.fromisoformat(manifest.created).date().isoformat(),
        models=tuple(config for name, config in configs.items() if name not in warnings),
        chat_template_kwargs=common if all(member.chat_template_kwargs == common for member in runs) else {},
        warnings=tuple(warnings.values()),
    )


def candidates_of(predictions: Sequence[ModelPredictions]) -> dict[str, dict[OutputKey, tuple[Grid, ...]]]:
    """Return the candidates of every model by test output, best first by vote."""
    return {
        model.model: {
            (task, index): ranked_grids(output)
            for task, outputs in model.outputs.items()
            for index, output in enumerate(outputs)
        }
        for model in predictions
    }


def ranked_grids(output: OutputPredictions) -> tuple[Grid, ...]:
    """Return the candidates of a test output, best first by vote; tied ones in the order of their cells."""
    return tuple(entry.grid for entry in rank_votes(output.votes()))


def _unfinished(path: Path, manifest: Manifest) -> tuple[str, ...]:
    """Return a warning if a run is unfinished: further predictions make its rescores unusable."""
    if manifest.finished is not None:
        return ()
    return (f"{path} is unfinished: rescore it again once it is complete",)

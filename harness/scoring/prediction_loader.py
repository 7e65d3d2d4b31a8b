"""Open saved predictions of any format for scoring: a run folder, or a file together with its dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.candidates.pool_folder import PoolFolder
from harness.core.errors import ArcBenchError, ConfigError
from harness.core.grid import Task
from harness.data.dataset import content_digest, iterate_tasks
from harness.data.spec import open_dataset
from harness.predictions.declared_tasks import check_same_tasks, declared_tasks
from harness.predictions.files.file_predictions import FilePredictions, find_format, read_file, read_table_rows
from harness.predictions.files.table_rows import TableRows
from harness.predictions.model_rescores import ModelRescores
from harness.predictions.pool_loader import OpenPool, open_pool
from harness.predictions.pooled_outputs import distinct_views, pooled_predictions
from harness.predictions.prediction_groups import ModelPredictions
from harness.predictions.rescore_loader import load_rescores, run_rescores
from harness.predictions.run_predictions import CostMeter, read_run_predictions
from harness.predictions.saved_folder import POOL_FORM, RUN, find_folder, require_dataset
from harness.runs.folder import RunFolder
from harness.runs.schemas.manifest_schema import Manifest
from harness.runs.schemas.results_schema import Cost
from harness.runs.schemas.sequential_schema import SequentialResult
from harness.scoring.sequential_scores import restrict_predictions, sequential_note, sequential_result
from harness.voting.early_stopping import Schedule, run_schedule


@dataclass(frozen=True, slots=True)
class SavedPredictions:
    """Predictions grouped by model, task and test output, with the tasks and settings to score them by."""

    form: str
    tasks: list[Task]
    """The declared tasks: those of the run, or all tasks of the dataset."""
    predictions: list[ModelPredictions]
    n: int
    """Requested predictions per test output."""
    seed: int
    """The seed of the run, for intervals; 0 for other files."""
    folder: RunFolder | None = None
    """The run to which the results belong; None for other files and for a run scored on another dataset."""
    manifest: Manifest | None = None
    """Of the run; None for other files."""
    rule: str | None = None
    """The selection rule that was recorded before sampling; None if none was."""
    schedule: Schedule | None = None
    """The rounds of a run with early stopping."""
    costs: dict[str, Cost] | None = None
    """The costs of a run by model; None for other files."""
    warnings: tuple[str, ...] = ()
    """Checks that could not be made."""
    rescores: Mapping[str, ModelRescores] = field(default_factory=dict)
    """By model, what rescoring gave for its candidates (``bench rescore``)."""
    sequential: SequentialResult | None = None
    """What the sequential design of a run found; None for other predictions."""
    pool: OpenPool | None = None
    """The content of a pool (``bench pool``); None for other predictions."""
    members: int | None = None
    """Number of members of a pool, also of one that was exported as a table; None for other predictions."""


def open_predictions(
    path: Path, spec: str | None = None, form: str | None = None, n: int | None = None, scorer: str | None = None
) -> SavedPredictions:
    """Read a run folder, a pool, or a file or folder of a format of ``harness.predictions.files.prediction_formats``.

    Args:
        spec: the dataset of the predictions. For a run or a pool it replaces its own.
        form: one of ``saved_folder.FORM_NAMES``; None detects the format.
        n: requested predictions per test output; None uses the largest number that a test output has in the
            file. Not for runs and pools.
        scorer: whose rescores the rules poe and kgmon use (see ``load_rescores``); runs and pools only.

    Raises:
        ConfigError: an option is missing or does not apply to the format.
        DataError, RunError: the content is damaged or does not fit the dataset; with file, line or id, and field.
    """
    folder = find_folder(path, form)
    if isinstance(folder, PoolFolder):
        if n is not None:
            raise ConfigError(f"{path}: a pool knows how many views were requested; leave out -n")
        return _open_pool(folder, spec, scorer)
    if folder is not None:
        if n is not None:
            raise ConfigError(f"{path}: a run knows how many predictions were requested; leave out -n")
        return _open_run(folder, spec, scorer)
    if scorer is not None:
        raise ConfigError(f"{path}: --scorer chooses among the rescores of a run or pool, which this is not")
    return _of_file(read_file(path, require_dataset(path, spec), find_format(path, form), n))


def open_table_rows(table: TableRows, spec: str, n: int | None = None) -> SavedPredictions:
    """Return the rows of a table for the tasks of a dataset; see ``open_predictions``.

    Raises:
        DataError: a row is damaged or does not fit the dataset; with the row and the column.
    """
    return _of_file(read_table_rows(table, spec, n))


def _of_file(file: FilePredictions) -> SavedPredictions:
    return SavedPredictions(file.form, file.tasks, file.predictions, file.n, seed=0, members=file.members)


def _open_pool(folder: PoolFolder, spec: str | None, scorer: str | None) -> SavedPredictions:
    """Read the candidates and rescores of a pool; ``spec`` replaces its dataset."""
    pool = open_pool(folder, spec)
    predictions = [pooled_predictions(pool.members, {task.id: len(task.test) for task in pool.tasks})]
    members = [member.record for member in pool.members]
    rescores, notes = load_rescores(folder.path, predictions, pool.manifest.candidates_sha256, scorer)
    warnings = [f"{member.name}: {warning}" for member in members for warning in member.warnings]
    return SavedPredictions(
        POOL_FORM,
        pool.tasks,
        predictions,
        distinct_views(members),
        pool.manifest.seed,
        warnings=(*warnings, *notes),
        rescores=rescores,
        pool=pool,
        members=len(members),
    )


def _open_run(folder: RunFolder, spec: str | None, scorer: str | None) -> SavedPredictions:
    """Read the predictions and rescores of a run; ``spec`` replaces its dataset."""
    manifest = folder.manifest()
    tasks = declared_tasks(manifest) if spec is None else list(iterate_tasks(open_dataset(spec)))
    warnings = () if spec is None else _check_same_tasks(folder, manifest, tasks, spec)
    meter = CostMeter()
    predictions = read_run_predictions(folder, manifest, tasks, meter)
    rescores, notes = run_rescores(folder, predictions, scorer)
    config = manifest.config
    sequential = sequential_result(config, tasks, predictions)
    if sequential is not None:
        reached = set(config.task_ids) - set(sequential.not_reached)
        tasks = [task for task in tasks if task.id in reached]
        predictions = restrict_predictions(predictions, reached)
        notes = [*notes, sequential_note(folder.path, sequential)]
    return SavedPredictions(
        RUN,
        tasks,
        predictions,
        config.n,
        config.seed,
        folder=folder if spec is None else None,
        manifest=manifest,
        rule=config.rule,
        schedule=run_schedule(config),
        costs=meter.costs(),
        warnings=(*warnings, *notes),
        rescores=rescores,
        sequential=sequential,
    )


def _check_same_tasks(folder: RunFolder, manifest: Manifest, tasks: Sequence[Task], spec: str) -> tuple[str, ...]:
    """Check that another dataset has the run's tasks under the run's ids.

    Returns:
        A warning if this cannot be checked: for a run of an older version whose own dataset is not available.

    Raises:
        DataError: an id of the run names another task in the dataset.
    """
    digests = manifest.task_digests
    if digests is None:
        try:
            digests = [content_digest(task) for task in declared_tasks(manifest)]
        except ArcBenchError as error:
            return (f"{folder.path}: it cannot be checked that {spec} has the tasks that were asked ({error})",)
    check_same_tasks(folder.path, dict(zip(manifest.config.task_ids, digests, strict=True)), tasks, spec)
    return ()

"""Saved predictions one by one in the order of their file, without grouping them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.candidates.pool_folder import PoolFolder
from harness.core.grid import Task
from harness.data.dataset import iterate_tasks
from harness.data.spec import open_dataset
from harness.predictions.declared_tasks import declared_tasks
from harness.predictions.files.file_predictions import common_name, find_format
from harness.predictions.files.prediction_formats import Format
from harness.predictions.files.prediction_tables import (
    PooledVote,
    table_kind,
    table_predictions,
    table_views,
    table_votes,
)
from harness.predictions.files.saved_grid import within_limits
from harness.predictions.files.table_rows import TableRows, open_table
from harness.predictions.pool_loader import open_pool
from harness.predictions.pooled_outputs import MemberPredictions
from harness.predictions.prediction_groups import raise_problems
from harness.predictions.saved_folder import find_folder, require_dataset
from harness.runs.folder import RunFolder
from harness.runs.logs.prediction_reader import EnumeratedView, Prediction, holds_views, read_predictions, read_views


@dataclass(frozen=True, slots=True)
class PredictionStream:
    """Predictions of one of three kinds; the other two iterators are None."""

    tasks: list[Task]
    drawn: Iterator[Prediction] | None = None
    views: Iterator[EnumeratedView] | None = None
    votes: Iterator[PooledVote] | None = None
    """The proposals of a pool."""


def stream_predictions(path: Path, spec: str | None = None, form: str | None = None) -> PredictionStream:
    """Open saved predictions of any format of ``open_predictions``; what is damaged raises while they are read.

    Args:
        spec, form: as for ``open_predictions``.

    Raises:
        ConfigError: an option is missing. DataError, RunError: the content is damaged or does not fit the dataset.
    """
    folder = find_folder(path, form)
    if isinstance(folder, PoolFolder):
        pool = open_pool(folder, spec)
        return PredictionStream(pool.tasks, votes=_member_votes(pool.members))
    if folder is not None:
        return _stream_run(folder, spec)
    spec = require_dataset(path, spec)
    tasks = list(iterate_tasks(open_dataset(spec)))
    file_form = find_format(path, form)
    if file_form.name == "table":
        return stream_table(open_table(path), tasks)
    if file_form.name == "lines" and holds_views(path):
        return PredictionStream(tasks, views=read_views(path, accept_unended=True))
    if file_form.name == "lines":
        return PredictionStream(tasks, drawn=within_limits(read_predictions(path, accept_unended=True), tasks))
    drawn = _one_model(path, file_form, {task.id: len(task.test) for task in tasks})
    return PredictionStream(tasks, drawn=within_limits(drawn, tasks))


def _one_model(path: Path, form: Format, outputs: Mapping[str, int]) -> Iterator[Prediction]:
    """Yield the predictions of a file as those of one model, for which the file is read twice.

    Raises:
        DataError: the content is damaged or does not fit the dataset.
    """
    problems: list[str] = []
    model = common_name({prediction.model for prediction in form.read(path, outputs, problems)})
    raise_problems(problems, str(path), "mend it, or name the dataset that it answers")
    return (replace(prediction, model=model) for prediction in form.read(path, outputs, []))


def stream_table(table: TableRows, tasks: list[Task]) -> PredictionStream:
    """Return the rows of a table.

    Raises:
        DataError: a column is missing.
    """
    kind = table_kind(table)
    if kind == "drawn":
        return PredictionStream(tasks, drawn=within_limits(table_predictions(table), tasks))
    if kind == "views":
        return PredictionStream(tasks, views=table_views(table))
    return PredictionStream(tasks, votes=table_votes(table))


def _stream_run(folder: RunFolder, spec: str | None) -> PredictionStream:
    """Return the predictions or views of a run, which are compared with their SHA-256 at first."""
    manifest = folder.manifest()
    tasks = declared_tasks(manifest) if spec is None else list(iterate_tasks(open_dataset(spec)))
    folder.check_predictions(manifest)
    if manifest.config.search is None:
        return PredictionStream(tasks, drawn=read_predictions(folder.predictions_path))
    return PredictionStream(tasks, views=read_views(folder.predictions_path))


def _member_votes(members: Sequence[MemberPredictions]) -> Iterator[PooledVote]:
    """Yield the proposals of every member, member by member."""
    for member in members:
        record = member.record
        for key, votes in member.votes.items():
            for vote in votes:
                yield PooledVote(record.name, record.view_space, key, vote, record.names_views)

"""Read files and folders of predictions that are no runs or pools, for the tasks of a dataset."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

from harness.core.errors import DataError
from harness.core.grid import Task
from harness.data.dataset import iterate_tasks
from harness.data.spec import open_dataset
from harness.predictions.enumerated_outputs import group_views
from harness.predictions.files.prediction_formats import Format, detect_format, format_named
from harness.predictions.files.prediction_tables import group_table
from harness.predictions.files.saved_grid import within_limits
from harness.predictions.files.table_rows import TableRows, open_table
from harness.predictions.prediction_groups import UNNAMED, ModelPredictions, check_counts, group_predictions
from harness.runs.logs.prediction_reader import Prediction, holds_views, read_views


@dataclass(frozen=True, slots=True)
class FilePredictions:
    """The predictions of a file, grouped by model, task and test output."""

    form: str
    tasks: list[Task]
    """All tasks of the dataset."""
    predictions: list[ModelPredictions]
    n: int
    """Requested predictions per test output."""
    members: int | None = None
    """Number of members of a pool that was exported as a table; None for other predictions."""


def find_format(path: Path, form: str | None = None) -> Format:
    """Return the format of a file or folder that is no run or pool.

    Raises:
        ConfigError: no format has the name ``form``.
        DataError: the format cannot be detected, or is not that of a folder.
    """
    chosen = detect_format(path) if form is None else format_named(form)
    if path.is_dir() and chosen.name != "arcprize":
        raise DataError(f"{path}: is a folder; --format {chosen.name} reads a file ({chosen.summary}); name it")
    return chosen


def read_file(path: Path, spec: str, form: Format, n: int | None) -> FilePredictions:
    """Read a file or folder of predictions for the tasks of a dataset; see ``open_predictions``."""
    if form.name == "table":
        return read_table_rows(open_table(path), spec, n)
    requested = form.attempts if n is None else n
    tasks = list(iterate_tasks(open_dataset(spec)))
    outputs = {task.id: len(task.test) for task in tasks}
    problems: list[str] = []
    lines = within_limits(form.read(path, outputs, problems), tasks)
    if form.name == "lines" and holds_views(path):
        predictions = group_views(read_views(path, accept_unended=True), outputs, None, str(path))
    elif form.name == "lines":
        predictions = group_predictions(lines, outputs, None, str(path), problems)
    else:
        names: set[str] = set()
        merged = group_predictions(_as_one_model(lines, names), outputs, [UNNAMED], str(path), problems)
        predictions = [replace(model, model=common_name(names)) for model in merged]
    return FilePredictions(form.name, tasks, predictions, _requested(predictions, requested, str(path), spec))


def read_table_rows(table: TableRows, spec: str, n: int | None = None) -> FilePredictions:
    """Read the rows of a table for the tasks of a dataset; see ``open_predictions``.

    Raises:
        DataError: a row is damaged or does not fit the dataset; with the row and the column.
    """
    tasks = list(iterate_tasks(open_dataset(spec)))
    predictions, members = group_table(table, tasks, n)
    return FilePredictions("table", tasks, predictions, _requested(predictions, n, table.name, spec), members or None)


def _requested(predictions: Sequence[ModelPredictions], n: int | None, where: str, spec: str) -> int:
    """Return the number of requested predictions per test output: ``n``, or the largest that one has.

    Raises:
        DataError: there are none, or more than ``n``.
    """
    largest = max((model.largest for model in predictions), default=0)
    if not largest:
        raise DataError(f"{where}: holds no prediction for the tasks of {spec}")
    if n is not None:
        check_counts(predictions, n, where)
    return largest if n is None else n


def common_name(names: Set[str]) -> str:
    """Return the name of a file's model: the only one that its predictions have, else UNNAMED."""
    models = names - {UNNAMED}
    return next(iter(models)) if len(models) == 1 else UNNAMED


def _as_one_model(predictions: Iterable[Prediction], names: set[str]) -> Iterator[Prediction]:
    """Yield all predictions as those of one unnamed model; add the names that they had to ``names``."""
    for prediction in predictions:
        names.add(prediction.model)
        yield prediction if prediction.model == UNNAMED else replace(prediction, model=UNNAMED)

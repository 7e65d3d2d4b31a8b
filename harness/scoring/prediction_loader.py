"""Saved predictions of any form, opened for scoring: a run folder, or a file with the dataset that it answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.core.errors import ArcBenchError, ConfigError, DataError, format_ids
from harness.core.grid import Task
from harness.data.dataset import SHOWN_DIGITS, content_digest, iterate_tasks
from harness.data.spec import open_dataset
from harness.runs.folder import RunFolder
from harness.runs.prediction_reader import Prediction
from harness.runs.schema import Cost, Manifest
from harness.scoring.declared_tasks import declared_tasks
from harness.scoring.prediction_formats import FORMATS, Format, detect_format, format_named
from harness.scoring.prediction_groups import UNNAMED, ModelPredictions, check_counts, group_predictions
from harness.scoring.run_scores import CostMeter, read_run_predictions
from harness.voting.early_stopping import Schedule, run_schedule

RUN = "run"
FORM_NAMES = (RUN, *FORMATS)
"""What ``--format`` takes."""


@dataclass(frozen=True, slots=True)
class SavedPredictions:
    """Predictions gathered by model, task and test output, with what they are held against."""

    form: str
    tasks: list[Task]
    """The declared tasks: those of the run, or all of the dataset."""
    predictions: list[ModelPredictions]
    n: int
    """Predictions due for each test output."""
    seed: int
    """Of the run, 0 for any other file; it seeds the intervals."""
    folder: RunFolder | None = None
    """The run whose results these are; None for other files, and for a run held against another dataset."""
    schedule: Schedule | None = None
    """The rounds of a run that stopped early."""
    costs: dict[str, Cost] | None = None
    """What the predictions of a run cost, by model."""
    warnings: tuple[str, ...] = ()
    """What could not be checked."""


def open_predictions(
    path: Path, spec: str | None = None, form: str | None = None, n: int | None = None
) -> SavedPredictions:
    """Read a run folder, or any file or folder that ``harness.scoring.prediction_formats`` knows.

    Args:
        spec: the dataset that the predictions answer. A run knows its own; given here, it takes its place.
        form: one of FORM_NAMES; None recognises it.
        n: predictions a test output that the file claims to hold; None is the largest number found. Not for runs.

    Raises:
        ConfigError: an option is missing or does not go with the form.
        DataError, RunError: the content is not what it must be, with file, line or id, and field.
    """
    folder = _run_folder(path)
    if form == RUN or (form is None and folder is not None):
        if n is not None:
            raise ConfigError(f"{path}: a run knows how many predictions were due; leave out -n")
        return _open_run(folder or RunFolder(path), spec)
    if spec is None:
        raise ConfigError(f"{path}: name the tasks that it answers with --dataset, such as arc1/evaluation")
    return _open_file(path, spec, detect_format(path) if form is None else format_named(form), n)


def _run_folder(path: Path) -> RunFolder | None:
    """The run that a path names: its folder or its predictions; also a folder without any other form's files."""
    folder = path.parent if path.name == "predictions.jsonl" and path.is_file() else path
    if (folder / "manifest.json").is_file():
        return RunFolder(folder)
    return RunFolder(path) if path.is_dir() and not any(path.glob("*.json")) else None


def _open_run(folder: RunFolder, spec: str | None) -> SavedPredictions:
    manifest = folder.manifest()
    tasks = declared_tasks(manifest) if spec is None else list(iterate_tasks(open_dataset(spec)))
    warnings = () if spec is None else _check_same_tasks(folder, manifest, tasks, spec)
    meter = CostMeter()
    predictions = read_run_predictions(folder, manifest, tasks, meter)
    config = manifest.config
    own = folder if spec is None else None
    return SavedPredictions(
        RUN, tasks, predictions, config.n, config.seed, own, run_schedule(config), meter.costs(), warnings
    )


def _check_same_tasks(folder: RunFolder, manifest: Manifest, tasks: Sequence[Task], spec: str) -> tuple[str, ...]:
    """Check that the tasks of another dataset that have ids of the run are those that the run was asked.

    Returns:
        A warning where that cannot be told: a run of an older version whose own dataset is not there.

    Raises:
        DataError: under an id of the run stands another task.
    """
    digests = manifest.task_digests
    if digests is None:
        try:
            digests = [content_digest(task) for task in declared_tasks(manifest)]
        except ArcBenchError as error:
            return (f"{folder.path}: it cannot be checked that {spec} has the tasks that were asked ({error})",)
    sampled = {name: one[:SHOWN_DIGITS] for name, one in zip(manifest.config.task_ids, digests, strict=True)}
    other = [t.id for t in tasks if t.id in sampled and content_digest(t)[:SHOWN_DIGITS] != sampled[t.id]]
    if other:
        raise DataError(
            f"{folder.path} was asked other tasks than {spec} has under the ids {format_ids(other)}: its answers say "
            "nothing about them"
        )
    return ()


def _open_file(path: Path, spec: str, form: Format, n: int | None) -> SavedPredictions:
    if path.is_dir() and form.name != "arcprize":
        raise DataError(f"{path}: is a folder; --format {form.name} reads a file ({form.summary}); name it")
    claimed = form.attempts if n is None else n
    tasks = list(iterate_tasks(open_dataset(spec)))
    outputs = {task.id: len(task.test) for task in tasks}
    problems: list[str] = []
    answers = form.read(path, outputs, problems)
    if form.name == "lines":
        predictions = group_predictions(answers, outputs, None, str(path), problems)
    else:
        names: set[str] = set()
        merged = group_predictions(_as_one(answers, names), outputs, [UNNAMED], str(path), problems)
        named = sorted(names - {UNNAMED})
        predictions = [replace(own, model=named[0] if len(named) == 1 else UNNAMED) for own in merged]
    found = max((own.largest for own in predictions), default=0)
    if not found:
        raise DataError(f"{path}: holds no prediction for the tasks of {spec}")
    if claimed is not None:
        check_counts(predictions, claimed, str(path))
    return SavedPredictions(form.name, tasks, predictions, found if claimed is None else claimed, 0)


def _as_one(answers: Iterable[Prediction], names: set[str]) -> Iterator[Prediction]:
    """All answers as those of one model; the names that they bear go to ``names``."""
    for answer in answers:
        names.add(answer.model)
        yield answer if answer.model == UNNAMED else replace(answer, model=UNNAMED)

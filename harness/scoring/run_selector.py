"""Models of runs and files that ``RUN[@MODEL]`` strings name, scored, with warnings about comparing them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.candidates.pool_folder import is_pool
from harness.core.errors import ConfigError, RunError
from harness.core.grid import Task
from harness.predictions.model_rescores import NOT_RESCORED, ModelRescores
from harness.predictions.prediction_groups import ModelPredictions
from harness.predictions.saved_folder import find_folder
from harness.runs.folder import RunFolder
from harness.runs.schemas.manifest_schema import Manifest
from harness.scoring.matched_runs import ScoredRun, SelectedModels, match_runs, scored_run, unfinished_warnings
from harness.scoring.prediction_loader import open_predictions
from harness.scoring.run_scores import score_saved
from harness.voting.early_stopping import Schedule
from harness.voting.metrics import METRICS


@dataclass(frozen=True)
class SelectedModel:
    """The predictions of one model of a run."""

    predictions: ModelPredictions
    tasks: list[Task]
    seed: int
    schedule: Schedule | None
    """The rounds of a run with early stopping."""
    warnings: list[str]
    """A warning if the run is unfinished."""
    rule: str | None = None
    """The selection rule that was recorded before sampling; None if none was."""
    rescores: ModelRescores = NOT_RESCORED


def select_models(
    names: Sequence[str],
    common: bool = False,
    rule: str | None = None,
    scorer: str | None = None,
    dataset: str | None = None,
) -> SelectedModels:
    """Return the scored models that ``RUN[@MODEL]`` strings name, in order; RUN alone names all of its models.

    A RUN may also be a file of predictions in any format, such as somebody's submission.

    Args:
        common: if the runs declared different tasks, score the tasks that all declared, instead of raising. Two tasks
            are the same if both id and content are equal.
        rule: the headline rule of all of them; None takes each run's own.
        scorer: whose rescores the rules that need them use, where several models rescored.
        dataset: the dataset of the files; None takes that of the runs, if all have the same.

    Raises:
        ConfigError: the dataset of a file is not known.
        RunError: a run or model does not exist, the runs' tasks differ, or they have none in common.
        UnusableRuleError: the predictions of a model lack what the rule needs.
    """
    chosen = [split_run_name(name) for name in names]
    paths = list(dict.fromkeys(path for path, _ in chosen))
    manifests = {path: RunFolder(path).manifest() for path in paths if not is_file_of_predictions(path)}
    files = [path for path in paths if path not in manifests]
    if dataset is not None and not files:
        raise ConfigError("--dataset is the dataset of files of predictions; runs know theirs")
    specs = dict.fromkeys(files, dataset or _common_dataset(manifests.values()))
    for path, model in chosen:
        if path in manifests:
            _check_known(path, model, [config.name for config in manifests[path].config.models])
    runs = {path: _score(path, specs.get(path), rule, None if path in specs else scorer) for path in paths}
    for path, model in chosen:
        _check_known(path, model, [scores.model for scores in runs[path].scored])
    return match_runs(runs, chosen, common)


def _common_dataset(manifests: Iterable[Manifest]) -> str | None:
    """Return the dataset of the runs; None if there is no run, or their datasets differ."""
    specs = {manifest.config.dataset for manifest in manifests}
    return specs.pop() if len(specs) == 1 else None


def is_file_of_predictions(path: Path) -> bool:
    """Return whether a path names a file or folder of predictions in another format than a run's or a pool's."""
    return path.exists() and find_folder(path) is None


def _score(path: Path, spec: str | None, rule: str | None, scorer: str | None) -> ScoredRun:
    """Read predictions and score their models by the headline rule."""
    saved = open_predictions(path, spec, scorer=scorer)
    return scored_run(saved, score_saved(saved, rule))


def require_one_model(name: str) -> None:
    """Check that ``RUN[@MODEL]`` names exactly one model; of a file, ``require_one_each`` checks it later.

    Raises:
        ConfigError: the run has several models and the string names none of them.
        RunError: no such run or model.
    """
    path, model = split_run_name(name)
    if is_file_of_predictions(path):
        return
    known = [config.name for config in RunFolder(path).manifest().config.models]
    _check_known(path, model, known)
    if model is None and len(known) != 1:
        raise ConfigError(f"{path} holds several models; name one with RUN@MODEL: {', '.join(known)}")


def require_one_each(selected: SelectedModels, names: Sequence[str]) -> None:
    """Check that every one of the strings named one model.

    Raises:
        ConfigError: a file has several.
    """
    if len(selected.scored) > len(names):
        known = ", ".join(scores.model for scores in selected.scored)
        raise ConfigError(f"a file holds several models; name one with FILE@MODEL: {known}")


def require_measured(selected: SelectedModels, metric: str) -> None:
    """Check that every selected model measures a metric.

    Raises:
        ConfigError: one does not; the message says which model, and why.
    """
    for scores in selected.scored:
        if scores.stopping is not None and (why := scores.stopping.not_available.get(metric)):
            raise ConfigError(
                f"{scores.model} stopped early ({scores.stopping.rule}), so that {metric} is unknown: {why}"
            )
        if metric not in scores.measured and metric in METRICS:
            raise ConfigError(f"{scores.model} has no {metric}; choose of {', '.join(scores.measured)}")
        if metric not in scores.measured:
            raise ConfigError(f"{metric} is of enumerated views only (--search dfs), and {scores.model} was drawn")


def select_model(name: str, scorer: str | None = None) -> SelectedModel:
    """Return the predictions of the one model that ``RUN[@MODEL]`` names, or of the pool that it names.

    Args:
        scorer: whose rescores to use (see ``load_rescores``).

    Raises:
        ConfigError: the run has several models and the string names none of them; or the choice of the scorer.
        RunError, DataError: no such run or model, or a damaged file.
    """
    path, model = split_run_name(name)
    if not (model is None and is_pool(path)):
        require_one_model(name)
    saved = open_predictions(path, scorer=scorer)
    predictions = next(one for one in saved.predictions if model in (None, one.model))
    unfinished = unfinished_warnings({} if saved.manifest is None else {path: saved.manifest})
    return SelectedModel(
        predictions,
        saved.tasks,
        saved.seed,
        saved.schedule,
        [*unfinished, *saved.warnings],
        saved.rule,
        saved.rescores.get(predictions.model, NOT_RESCORED),
    )


def split_run_name(name: str) -> tuple[Path, str | None]:
    """Split ``RUN[@MODEL]`` into run folder and model; both may contain ``@``, so the existing run decides.

    Raises:
        ConfigError: two readings are possible.
    """
    places = [place for place, character in enumerate(name) if character == "@"]
    readings = [(_run_of(name), None), *((_run_of(name[:place]), name[place + 1 :]) for place in places)]
    runs = [(path, model) for path, model in readings if RunFolder(path).manifest_path.is_file()]
    if len(runs) > 1:
        runs = [
            (path, model)
            for path, model in runs
            if model is None or model in [known.name for known in RunFolder(path).manifest().config.models]
        ]
    if len(runs) > 1:
        ways = " or ".join(str(path) if model is None else f"model {model} of {path}" for path, model in runs)
        raise ConfigError(f"{name} may be {ways}; write the run as {runs[0][0]}/ or a model as RUN/@MODEL")
    if not runs and Path(name).exists():
        return readings[0]
    return runs[0] if runs else readings[min(1, len(places))]


def _run_of(name: str) -> Path:
    """Return the folder of a run of which ``name`` is the folder or the predictions.jsonl; any other path as it is."""
    found = find_folder(Path(name))
    return found.path if isinstance(found, RunFolder) else Path(name)


def _check_known(path: Path, model: str | None, known: Sequence[str]) -> None:
    """Raise RunError if ``model`` is not one of those of a run."""
    if model is not None and model not in known:
        raise RunError(f"{path} has no model {model!r}; it has: {', '.join(known)}")

"""Models of run folders that ``RUN[@MODEL]`` strings name, scored, with warnings about comparing them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

from harness.candidates.pool_folder import is_pool
from harness.core.errors import ConfigError, RunError, format_ids
from harness.core.grid import Task
from harness.data.dataset import content_digest
from harness.runs.folder import RunFolder
from harness.runs.schema import Manifest
from harness.runs.sequential_schema import SequentialResult
from harness.scoring.comparable_metrics import enumerated_note, mixed_note, unequal_counts_note
from harness.scoring.confounders import find_confounders
from harness.scoring.early_stopped_scores import unavailable_metrics, unavailable_metrics_text
from harness.scoring.headline_rule import rule_note
from harness.scoring.model_scores import ModelScores
from harness.scoring.prediction_groups import ModelPredictions
from harness.scoring.prediction_loader import open_predictions
from harness.scoring.rule_scores import NOT_RESCORED, ModelRescores
from harness.scoring.run_scores import score_saved
from harness.voting.early_stopping import Schedule, run_schedule
from harness.voting.metrics import average_outputs


@dataclass(frozen=True)
class SelectedModels:
    """Scored models of one or more runs on the same tasks."""

    scored: list[ModelScores]
    seed: int
    """The seed of the first run, for intervals and tests."""
    warnings: list[str]
    """Differences between the runs other than their models, and runs that are unfinished."""
    sequential: tuple[SequentialResult, ...] = ()
    """What the sequential designs of the runs found."""


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
    names: Sequence[str], common: bool = False, rule: str | None = None, scorer: str | None = None
) -> SelectedModels:
    """Return the scored models that ``RUN[@MODEL]`` strings name, in order; RUN alone names all of its models.

    Args:
        common: if the runs declared different tasks, score the tasks that all declared, instead of raising. Two tasks
            are the same if both id and content are equal.
        rule: the headline rule of all of them; None takes each run's own.
        scorer: whose rescores the rules that need them use, where several models rescored.

    Raises:
        RunError: a run or model does not exist, the runs' tasks differ, or they have none in common.
        UnusableRuleError: the predictions of a model lack what the rule needs.
    """
    paths = list(dict.fromkeys(split_run_name(name)[0] for name in names))
    manifests = {path: RunFolder(path).manifest() for path in paths}
    for path, model in map(split_run_name, names):
        _check_known(path, model, manifests[path])
    runs = {path: _score(path, rule, scorer) for path in paths}
    digests = {path: run.digests for path, run in runs.items()}
    shared = _shared_ids(digests)
    if not common and (differing := _task_differences(digests)):
        raise RunError(f"{differing}; --common compares the {len(shared)} tasks that all have")
    folders = [path.name for path in paths]
    scored: list[ModelScores] = []
    for name in names:
        path, model = split_run_name(name)
        label = "" if len(paths) == 1 else f"{path.name if folders.count(path.name) == 1 else path}@"
        scored += [replace(s, model=label + s.model) for s in runs[path].scored if model in (None, s.model)]
    warnings = _warnings(manifests, names) + [text for run in runs.values() for text in run.warnings]
    larger = {path: len(by_id) for path, by_id in digests.items() if len(by_id) > len(shared)}
    if larger:
        partial = ", ".join(f"{len(shared)} of the {count} of {path}" for path, count in larger.items())
        warnings.append(f"compared are the {len(shared)} tasks that all runs have (id and content): {partial}")
    scored = restrict_to_tasks(scored, shared)
    rules = rule_note({scores.model: scores.rule for scores in scored})
    notes = (mixed_note(scored), enumerated_note(scored), unequal_counts_note(scored), rules)
    warnings += [note for note in notes if note is not None]
    sequential = tuple(run.sequential for run in runs.values() if run.sequential is not None)
    return SelectedModels(scored, runs[paths[0]].seed, warnings, sequential)


@dataclass(frozen=True)
class _ScoredRun:
    """The scores of every model of a run, without its predictions."""

    scored: list[ModelScores]
    digests: dict[str, str]
    """The content digest of each task by its id."""
    seed: int
    warnings: tuple[str, ...]
    sequential: SequentialResult | None


def _score(path: Path, rule: str | None, scorer: str | None) -> _ScoredRun:
    """Read a run and score its models by the headline rule."""
    saved = open_predictions(path, scorer=scorer)
    digests = {task.id: content_digest(task) for task in saved.tasks}
    return _ScoredRun(score_saved(saved, rule), digests, saved.seed, saved.warnings, saved.sequential)


def require_one_model(name: str) -> None:
    """Check that ``RUN[@MODEL]`` names exactly one model.

    Raises:
        ConfigError: the run has several models and the string names none of them.
        RunError: no such run or model.
    """
    path, model = split_run_name(name)
    manifest = RunFolder(path).manifest()
    known = _check_known(path, model, manifest)
    if model is None and len(known) != 1:
        raise ConfigError(f"{path} holds several models; name one with RUN@MODEL: {', '.join(known)}")


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


def restrict_to_tasks(scored: Sequence[ModelScores], task_ids: Set[str]) -> list[ModelScores]:
    """Return the models' scores on some of their tasks.

    ``failures`` is empty for a model that had more tasks: failures are counted by model, not by task.
    """
    restricted = []
    for scores in scored:
        if len(scores.outputs) == len(task_ids):
            restricted.append(scores)
            continue
        outputs = {task: task_outputs for task, task_outputs in scores.outputs.items() if task in task_ids}
        requested = sum(score.n for task_outputs in outputs.values() for score in task_outputs)
        restricted.append(
            replace(scores, tasks=average_outputs(outputs), outputs=outputs, failures={}, predictions=requested)
        )
    return restricted


def split_run_name(name: str) -> tuple[Path, str | None]:
    """Split ``RUN[@MODEL]`` into run folder and model; both may contain ``@``, so the existing run decides.

    Raises:
        ConfigError: two readings are possible.
    """
    places = [place for place, character in enumerate(name) if character == "@"]
    readings = [(Path(name), None), *((Path(name[:place]), name[place + 1 :]) for place in places)]
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
    return runs[0] if runs else readings[min(1, len(places))]


def _check_known(path: Path, model: str | None, manifest: Manifest) -> list[str]:
    """Return the names of a run's models.

    Raises:
        RunError: ``model`` is not one of them.
    """
    known = [config.name for config in manifest.config.models]
    if model is not None and model not in known:
        raise RunError(f"{path} has no model {model!r}; it has: {', '.join(known)}")
    return known


def _shared_ids(digests: Mapping[Path, Mapping[str, str]]) -> set[str]:
    """Return the ids of the tasks that every run declared with the same content.

    Args:
        digests: by run, the content digest of each task by its id.

    Raises:
        RunError: the runs have no such task in common.
    """
    first, *others = digests.values()
    shared = {task for task, digest in first.items() if all(other.get(task) == digest for other in others)}
    if not shared:
        same_ids = set.intersection(*(set(by_id) for by_id in digests.values()))
        why = f"; {len(same_ids)} ids are the same, but stand for other tasks in each" if same_ids else ""
        raise RunError(f"{', '.join(map(str, digests))} have no task in common, so that nothing can be paired{why}")
    return shared


def _task_differences(digests: Mapping[Path, Mapping[str, str]]) -> str:
    """Return a description of how the runs' declared tasks differ; empty if all declared the same.

    Args:
        digests: by run, the content digest of each task by its id.
    """
    (first, declared), *others = digests.items()
    differences = []
    for path, other in others:
        for lacking, having, ids in (
            (path, first, declared.keys() - other.keys()),
            (first, path, other.keys() - declared.keys()),
        ):
            if ids:
                differences.append(f"{lacking} did not declare tasks of {having}: {format_ids(sorted(ids))}")
        if changed := sorted(task for task in declared.keys() & other.keys() if declared[task] != other[task]):
            differences.append(f"{path} and {first} mean other tasks by the ids {format_ids(changed)}")
    return "; ".join(differences)


def unfinished_warnings(manifests: Mapping[Path, Manifest]) -> list[str]:
    """Return a warning for each run that is unfinished, or that its deadline cut."""
    return [
        f"{path} is unfinished; what was not sampled counts as missing"
        if manifest.cut_by is None
        else f"{path}: {manifest.cut_text()}"
        for path, manifest in manifests.items()
        if manifest.finished is None
    ]


def _warnings(manifests: Mapping[Path, Manifest], names: Sequence[str]) -> list[str]:
    """Return warnings about comparing the models that ``names`` (``RUN[@MODEL]``) select."""
    selected = {
        (path, config.name): config
        for path, model in map(split_run_name, names)
        for config in manifests[path].config.models
        if model in (None, config.name)
    }
    warnings = unfinished_warnings(manifests) + find_confounders(list(manifests.values()), list(selected.values()))
    for path, manifest in manifests.items():
        if (schedule := run_schedule(manifest.config)) is not None:
            notes = unavailable_metrics_text(unavailable_metrics(schedule))
            warnings += [f"{path} stopped early: {note}" for note in notes]
    return warnings

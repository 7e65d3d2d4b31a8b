"""``RUN[@MODEL]``: the models of run folders, scored, and what speaks against comparing them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

from harness.core.errors import ConfigError, RunError, format_ids
from harness.core.grid import Task
from harness.data.dataset import content_digest
from harness.runs.folder import RunFolder
from harness.runs.schema import Manifest
from harness.scoring.confounders import find_confounders
from harness.scoring.declared_tasks import declared_tasks
from harness.scoring.early_stopped_scores import unavailable_metrics, unavailable_metrics_text
from harness.scoring.prediction_groups import ModelPredictions
from harness.scoring.run_scores import ModelScores, read_run_predictions, score_run_models
from harness.voting.early_stopping import Schedule, run_schedule
from harness.voting.metrics import average


@dataclass(frozen=True)
class SelectedModels:
    """Scored models of one or more runs over the same tasks."""

    scored: list[ModelScores]
    seed: int
    """The first run's, for intervals and tests."""
    warnings: list[str]
    """In what the runs differ beside their models, and what is unfinished."""


@dataclass(frozen=True)
class SelectedModel:
    """What one model of a run answered."""

    predictions: ModelPredictions
    tasks: list[Task]
    seed: int
    schedule: Schedule | None
    """The rounds of a run that stopped early."""
    warnings: list[str]
    """That the run is unfinished."""


def select_models(names: Sequence[str], common: bool = False) -> SelectedModels:
    """The models that ``RUN[@MODEL]`` strings name, in order; a RUN alone gives all of its models.

    Args:
        common: where the runs declared different tasks, score those that all have, instead of refusing. A task is
            the same where id and content are.

    Raises:
        RunError: no such run or model, the tasks differ, or none is common to all.
    """
    paths = list(dict.fromkeys(_split(name)[0] for name in names))
    manifests = {path: RunFolder(path).manifest() for path in paths}
    tasks = {path: declared_tasks(manifest) for path, manifest in manifests.items()}
    contents = {path: {task.id: content_digest(task) for task in own} for path, own in tasks.items()}
    shared = _shared_ids(contents)
    if not common and (differing := _task_differences(contents)):
        raise RunError(f"{differing}; --common compares the {len(shared)} tasks that all have")
    by_path = {path: score_run_models(RunFolder(path), own, tasks=tasks[path]) for path, own in manifests.items()}
    folders = [path.name for path in paths]
    scored: list[ModelScores] = []
    for name in names:
        path, model = _split(name)
        _check_known(path, model, manifests[path])
        label = "" if len(paths) == 1 else f"{path.name if folders.count(path.name) == 1 else path}@"
        scored += [replace(s, model=label + s.model) for s in by_path[path] if model in (None, s.model)]
    seed = manifests[paths[0]].config.seed
    warnings = _warnings(manifests, names)
    if partial := [
        f"{len(shared)} of the {len(own)} of {path}" for path, own in contents.items() if len(own) > len(shared)
    ]:
        warnings.append(
            f"compared are the {len(shared)} tasks that all runs have (id and content): {', '.join(partial)}"
        )
    return SelectedModels(common_tasks(scored, shared), seed, warnings)


def require_one_model(name: str) -> None:
    """Refuse a ``RUN`` of several models where one is wanted.

    Raises:
        ConfigError: none of the run's models is named.
        RunError: no such run or model.
    """
    path, model = _split(name)
    manifest = RunFolder(path).manifest()
    known = _check_known(path, model, manifest)
    if model is None and len(known) != 1:
        raise ConfigError(f"{path} holds several models; name one with RUN@MODEL: {', '.join(known)}")


def require_measured(selected: SelectedModels, metric: str) -> None:
    """Refuse a metric that one of the models cannot tell.

    Raises:
        ConfigError: which, and why.
    """
    for scores in selected.scored:
        if scores.stopping is not None and (why := scores.stopping.not_available.get(metric)):
            raise ConfigError(
                f"{scores.model} stopped early ({scores.stopping.rule}), so that {metric} is unknown: {why}"
            )


def select_model(name: str) -> SelectedModel:
    """What the one model that ``RUN[@MODEL]`` names answered.

    Raises:
        ConfigError: the run has several models and none is named.
        RunError, DataError: no such run or model, or a broken file.
    """
    require_one_model(name)
    path, model = _split(name)
    folder = RunFolder(path)
    manifest = folder.manifest()
    tasks = declared_tasks(manifest)
    chosen = next(own for own in read_run_predictions(folder, manifest, tasks) if model in (None, own.model))
    early = run_schedule(manifest.config)
    return SelectedModel(chosen, tasks, manifest.config.seed, early, _unfinished({path: manifest}))


def common_tasks(scored: Sequence[ModelScores], shared: Set[str]) -> list[ModelScores]:
    """Return the models scored on some of their tasks; failures by kind are not known for a part and left empty."""
    kept = []
    for scores in scored:
        outputs = {task: own for task, own in scores.outputs.items() if task in shared}
        due = sum(score.n for own in outputs.values() for score in own)
        kept.append(replace(scores, tasks=average(outputs), outputs=outputs, failures={}, predictions=due))
    return [scores if len(scores.outputs) == len(shared) else part for scores, part in zip(scored, kept, strict=True)]


def _split(name: str) -> tuple[Path, str | None]:
    """Return the run and the model that ``RUN[@MODEL]`` names; an ``@`` may be part of either.

    Raises:
        ConfigError: it can be read in two ways.
    """
    places = [place for place, character in enumerate(name) if character == "@"]
    readings = [(Path(name), None), *((Path(name[:place]), name[place + 1 :]) for place in places)]
    runs = [(path, model) for path, model in readings if RunFolder(path).manifest_path.is_file()]
    if len(runs) > 1:
        runs = [
            (p, m) for p, m in runs if m is None or m in [own.name for own in RunFolder(p).manifest().config.models]
        ]
    if len(runs) > 1:
        ways = " or ".join(str(p) if m is None else f"model {m} of {p}" for p, m in runs)
        raise ConfigError(f"{name} may be {ways}; write the run as {runs[0][0]}/ or a model as RUN/@MODEL")
    return runs[0] if runs else readings[min(1, len(places))]


def _check_known(path: Path, model: str | None, manifest: Manifest) -> list[str]:
    """The models of a run, of which ``model`` must be one."""
    known = [own.name for own in manifest.config.models]
    if model is not None and model not in known:
        raise RunError(f"{path} has no model {model!r}; it has: {', '.join(known)}")
    return known


def _shared_ids(contents: Mapping[Path, Mapping[str, str]]) -> set[str]:
    """Return the ids under which every run has the same content.

    Args:
        contents: by run, ``content_digest`` by task id.

    Raises:
        RunError: there are none.
    """
    first, *others = contents.values()
    shared = {name for name, digest in first.items() if all(other.get(name) == digest for other in others)}
    if not shared:
        same_ids = set.intersection(*(set(own) for own in contents.values()))
        why = f"; {len(same_ids)} ids are the same, but stand for other tasks in each" if same_ids else ""
        raise RunError(f"{', '.join(map(str, contents))} have no task in common, so that nothing can be paired{why}")
    return shared


def _task_differences(contents: Mapping[Path, Mapping[str, str]]) -> str:
    """Return which tasks one run declared and another did not, in words; empty where all declared the same."""
    (first, declared), *others = contents.items()
    told = []
    for path, own in others:
        for lacking, having, ids in (
            (path, first, declared.keys() - own.keys()),
            (first, path, own.keys() - declared.keys()),
        ):
            if ids:
                told.append(f"{lacking} did not declare tasks of {having}: {format_ids(sorted(ids))}")
        if other := sorted(name for name in declared.keys() & own.keys() if declared[name] != own[name]):
            told.append(f"{path} and {first} mean other tasks by the ids {format_ids(other)}")
    return "; ".join(told)


def _unfinished(manifests: Mapping[Path, Manifest]) -> list[str]:
    return [
        f"{path} is unfinished; what was not sampled counts as missing"
        for path, manifest in manifests.items()
        if manifest.finished is None
    ]


def _warnings(manifests: Mapping[Path, Manifest], names: Sequence[str]) -> list[str]:
    """Return what speaks against comparing the models that ``names`` (``RUN[@MODEL]``) chose."""
    chosen = {
        (path, model.name): model
        for path, wanted in map(_split, names)
        for model in manifests[path].config.models
        if wanted in (None, model.name)
    }
    warnings = _unfinished(manifests) + find_confounders(list(manifests.values()), list(chosen.values()))
    for path, manifest in manifests.items():
        if (early := run_schedule(manifest.config)) is not None:
            warnings += [
                f"{path} stopped early: {text}" for text in unavailable_metrics_text(unavailable_metrics(early))
            ]
    return warnings

"""``RUN[@MODEL]``: the models of run folders, scored, and what speaks against comparing them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.ballots import Ballots
from harness.errors import ConfigError, RunError
from harness.grid import Task
from harness.metrics import average
from harness.records import Manifest
from harness.runs import RunFolder
from harness.scoring import ModelScores, collect_run, declared_tasks, score_saved
from harness.stopped import not_available, told_unknown
from harness.stopping import Schedule, of_run

_SHOWN = 8


@dataclass(frozen=True)
class Selected:
    """Scored models of one or more runs over the same tasks."""

    scored: list[ModelScores]
    seed: int
    """The first run's, for intervals and tests."""
    warnings: list[str]
    """In what the runs differ beside their models, and what is unfinished."""


@dataclass(frozen=True)
class SelectedModel:
    """What one model of a run answered."""

    ballots: Ballots
    tasks: list[Task]
    seed: int
    schedule: Schedule | None
    """The rounds of a run that stopped early."""
    warnings: list[str]
    """That the run is unfinished."""


def select_models(names: Sequence[str], common: bool = False) -> Selected:
    """The models that ``RUN[@MODEL]`` strings name, in order; a RUN alone gives all of its models.

    Args:
        common: where the runs declared different tasks, score those that all have, instead of refusing.

    Raises:
        RunError: no such run or model, or the task lists differ.
    """
    paths = list(dict.fromkeys(_split(name)[0] for name in names))
    manifests = {path: RunFolder(path).manifest() for path in paths}
    if not common and (differing := _task_differences(manifests)):
        raise RunError(f"{differing}; --common compares the tasks that all have")
    by_path = {path: score_saved(RunFolder(path), manifest) for path, manifest in manifests.items()}
    folders = [path.name for path in paths]
    scored: list[ModelScores] = []
    for name in names:
        path, model = _split(name)
        _check_known(path, model, manifests[path])
        label = "" if len(paths) == 1 else f"{path.name if folders.count(path.name) == 1 else path}@"
        scored += [replace(s, model=label + s.model) for s in by_path[path] if model in (None, s.model)]
    seed = manifests[paths[0]].config.seed
    return Selected(common_tasks(scored) if common else scored, seed, _warnings(manifests))


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


def require_measured(selected: Selected, metric: str) -> None:
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
    chosen = next(own for own in collect_run(folder, manifest, tasks) if model in (None, own.model))
    early = of_run(manifest.config)
    return SelectedModel(chosen, tasks, manifest.config.seed, early, _unfinished({path: manifest}))


def common_tasks(scored: Sequence[ModelScores]) -> list[ModelScores]:
    """The models scored on the tasks that all of them have; failures by kind are not known for a part and left empty.

    Raises:
        RunError: there is no such task.
    """
    shared = set.intersection(*(set(scores.outputs) for scores in scored))
    if not shared:
        raise RunError("the runs have no task in common, so that nothing can be paired")
    kept = []
    for scores in scored:
        outputs = {task: own for task, own in scores.outputs.items() if task in shared}
        due = sum(score.n for own in outputs.values() for score in own)
        kept.append(replace(scores, tasks=average(outputs), outputs=outputs, failures={}, predictions=due))
    return [scores if len(scores.outputs) == len(shared) else part for scores, part in zip(scored, kept, strict=True)]


def _split(name: str) -> tuple[Path, str | None]:
    path, at, model = name.partition("@")
    return Path(path), model if at else None


def _check_known(path: Path, model: str | None, manifest: Manifest) -> list[str]:
    """The models of a run, of which ``model`` must be one."""
    known = [own.name for own in manifest.config.models]
    if model is not None and model not in known:
        raise RunError(f"{path} has no model {model!r}; it has: {', '.join(known)}")
    return known


def _task_differences(manifests: Mapping[Path, Manifest]) -> str:
    """Which tasks one run declared and another did not; empty where there are none."""
    (first, manifest), *others = manifests.items()
    declared = set(manifest.config.task_ids)
    told = []
    for path, other in others:
        own = set(other.config.task_ids)
        for lacking, having, ids in ((path, first, declared - own), (first, path, own - declared)):
            if ids:
                shown = ", ".join(sorted(ids)[:_SHOWN]) + (" …" if len(ids) > _SHOWN else "")
                told.append(f"{lacking} did not declare {len(ids)} tasks of {having} ({shown})")
    return "; ".join(told)


def _unfinished(manifests: Mapping[Path, Manifest]) -> list[str]:
    return [
        f"{path} is unfinished; what was not sampled counts as missing"
        for path, manifest in manifests.items()
        if manifest.finished is None
    ]


def _warnings(manifests: Mapping[Path, Manifest]) -> list[str]:
    configs = [manifest.config for manifest in manifests.values()]
    warnings = _unfinished(manifests)
    fields = {
        "dataset_digest": "the dataset's content", "n": "n", "seed": "seed", "samples_per_view": "samples_per_view",
        "augment": "augment", "lenient": "lenient", "temperature": "temperature",
    }  # fmt: skip
    for field, word in fields.items():
        values = {str(getattr(config, field)) for config in configs}
        if len(values) > 1:
            warnings.append(f"the runs differ in {word} ({', '.join(sorted(values))})")
    rules = {"none" if config.stop is None else config.stop.rule for config in configs}
    if len(rules) > 1:
        warnings.append(f"the runs differ in their stopping rules ({', '.join(sorted(rules))})")
    for path, manifest in manifests.items():
        if (early := of_run(manifest.config)) is not None:
            warnings += [f"{path} stopped early: {text}" for text in told_unknown(not_available(early))]
    for field, word in {"prompt_digest": "prompt", "encoder": "encoder"}.items():
        values = {str(getattr(model, field)) for config in configs for model in config.models}
        if len(values) > 1:
            warnings.append(f"the models differ in {word} ({', '.join(sorted(values))})")
    return warnings

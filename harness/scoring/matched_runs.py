"""Scored runs matched by their tasks: which models are compared on which tasks, and what else differs between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.core.errors import ConfigError, RunError, format_ids
from harness.data.dataset import content_digest
from harness.predictions.prediction_groups import UNNAMED
from harness.runs.schemas.manifest_schema import Manifest
from harness.runs.schemas.sequential_schema import SequentialResult
from harness.scoring.comparable_metrics import (
    attempts_note,
    compared_metrics,
    enumerated_note,
    incomparable_reason,
    mixed_note,
    unequal_counts_note,
)
from harness.scoring.confounders import find_confounders
from harness.scoring.early_stopped_scores import unavailable_metrics, unavailable_metrics_text
from harness.scoring.headline_rule import rule_note
from harness.scoring.model_scores import ModelScores, missing_warning, unreadable_warning
from harness.scoring.paired_comparison import PairedComparison, all_pairs, compare_pairs, pairs_with_first
from harness.scoring.prediction_loader import SavedPredictions
from harness.voting.early_stopping import run_schedule
from harness.voting.metrics import ENUMERATED_METRICS, METRICS, average_outputs

ChosenModel = tuple[Path, str | None]
"""A run and the name of one of its models; None for all of them."""


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
class ScoredRun:
    """The scores of every model of a run, pool or file, without its predictions."""

    scored: list[ModelScores]
    digests: dict[str, str]
    """The content digest of each task by its id."""
    seed: int
    warnings: tuple[str, ...]
    manifest: Manifest | None
    """None for pools and files."""
    sequential: SequentialResult | None = None
    missing: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Of a file, by model, the ids of tasks without a prediction."""


def scored_run(saved: SavedPredictions, scored: Sequence[ModelScores]) -> ScoredRun:
    """Return the scores of saved predictions with what matching them needs."""
    digests = {task.id: content_digest(task) for task in saved.tasks}
    is_file = saved.manifest is None and saved.pool is None  # a run that lacks predictions is unfinished, and says so
    missing = {model.model: model.missing for model in saved.predictions if model.missing and is_file}
    return ScoredRun(list(scored), digests, saved.seed, saved.warnings, saved.manifest, saved.sequential, missing)


def match_runs(runs: Mapping[Path, ScoredRun], chosen: Sequence[ChosenModel], common: bool = False) -> SelectedModels:
    """Return the chosen models, in order, on the tasks that all runs have.

    Args:
        runs: by path.
        chosen: models of these runs.
        common: as for ``select_models``.

    Raises:
        RunError: the runs' tasks differ, or they have none in common.
    """
    digests = {path: run.digests for path, run in runs.items()}
    shared = _shared_ids(digests)
    if not common and (differing := _task_differences(digests)):
        raise RunError(f"{differing}; --common compares the {len(shared)} tasks that all have")
    folders = [path.name for path in runs]
    scored: list[ModelScores] = []
    unanswered: list[str] = []
    for path, model in chosen:
        label = "" if len(runs) == 1 else str(path.name if folders.count(path.name) == 1 else path)
        scored += [replace(s, model=_label(label, s.model)) for s in runs[path].scored if model in (None, s.model)]
        for name, ids in runs[path].missing.items():
            if model in (None, name) and (lacking := [task for task in ids if task in shared]):
                unanswered.append(missing_warning(_label(label, name), len(shared), lacking))
    warnings = _warnings(runs, chosen) + [text for run in runs.values() for text in run.warnings] + unanswered
    larger = {path: len(by_id) for path, by_id in digests.items() if len(by_id) > len(shared)}
    if larger:
        partial = ", ".join(f"{len(shared)} of the {count} of {path}" for path, count in larger.items())
        warnings.append(f"compared are the {len(shared)} tasks that all runs have (id and content): {partial}")
    scored = restrict_to_tasks(scored, shared)
    rules = rule_note({scores.model: scores.rule for scores in scored})
    notes = (attempts_note(scored), mixed_note(scored), enumerated_note(scored), unequal_counts_note(scored), rules)
    warnings += [note for note in notes if note is not None]
    warnings += filter(None, (unreadable_warning(s.model, s.made, s.failures) for s in scored))
    sequential = tuple(run.sequential for run in runs.values() if run.sequential is not None)
    return SelectedModels(scored, next(iter(runs.values())).seed, warnings, sequential)


def _label(run: str, model: str) -> str:
    """Return how a model of a run is named beside those of others; one run alone has no name."""
    return model if not run else run if model == UNNAMED else f"{run}@{model}"


def compare_matched(
    selected: SelectedModels, metrics: Sequence[str] | None = None, baseline: bool = False
) -> list[PairedComparison]:
    """Compare the models in pairs, the earlier one as the baseline.

    Args:
        metrics: None takes those that two models of their kinds have; one that is named twice counts once.
        baseline: whether to compare each model with the first only, not every pair.

    Raises:
        ConfigError: there is no such metric, no second model, or no metric in which two models are comparable.
    """
    check_metrics(metrics)
    pairs = pairs_with_first(selected.scored) if baseline else all_pairs(selected.scored)
    if not pairs:
        raise ConfigError("one model alone has nothing to be compared with; name a second one")
    chosen = list(dict.fromkeys(metrics or compared_metrics(selected.scored, METRICS)))
    comparisons = compare_pairs(pairs, selected.seed, chosen)
    if not comparisons:
        raise ConfigError("; ".join(incomparable_reason(name, *pairs[0]) for name in chosen))
    return comparisons


def check_metrics(metrics: Sequence[str] | None) -> None:
    """Raise ConfigError if a metric does not exist."""
    if unknown := [name for name in metrics or () if name not in ENUMERATED_METRICS]:
        raise ConfigError(f"there is no metric {unknown[0]!r}; choose of {', '.join(ENUMERATED_METRICS)}")


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


def _warnings(runs: Mapping[Path, ScoredRun], chosen: Sequence[ChosenModel]) -> list[str]:
    """Return warnings about comparing the chosen models."""
    manifests = {path: run.manifest for path, run in runs.items() if run.manifest is not None}
    selected = {
        (path, config.name): config
        for path, model in chosen
        if path in manifests
        for config in manifests[path].config.models
        if model in (None, config.name)
    }
    warnings = unfinished_warnings(manifests)
    if manifests:
        served = [model for path, name in selected for model in manifests[path].served if model.name == name]
        warnings += find_confounders(list(manifests.values()), list(selected.values()), served)
    for path, manifest in manifests.items():
        if (schedule := run_schedule(manifest.config)) is not None:
            notes = unavailable_metrics_text(unavailable_metrics(schedule))
            warnings += [f"{path} stopped early: {note}" for note in notes]
    return warnings

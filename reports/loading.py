"""Runs as reports need them: scored, and gathered by the dataset they sampled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.grid import Task
from harness.records import Manifest, Results
from harness.runs import RunFolder
from harness.scoring import ModelScores, declared_tasks, make_results, score_saved


@dataclass(frozen=True)
class LoadedRun:
    """One run folder with what was computed from its predictions."""

    folder: RunFolder
    manifest: Manifest
    scored: list[ModelScores]

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.folder.path.name


@dataclass(frozen=True)
class Section:
    """Runs over the same tasks with the same N and views, whose models may be compared."""

    dataset: str
    runs: tuple[LoadedRun, ...]
    tasks: tuple[Task, ...]
    scored: tuple[ModelScores, ...]
    """Every model of every run; named RUN@MODEL where a name alone is not unique."""
    results: Results

    @property
    def n(self) -> int:
        """Predictions a test output."""
        return self.runs[0].manifest.config.n

    @property
    def seed(self) -> int:
        """The seed of views, intervals and tests."""
        return self.runs[0].manifest.config.seed


def load_sections(paths: Sequence[Path]) -> list[Section]:
    """The runs in these folders as sections, in the order in which their datasets first come.

    Raises:
        RunError, DataError: a folder is not a run, or a file of it is broken.
    """
    groups: dict[tuple[object, ...], list[LoadedRun]] = {}
    for path in paths:
        folder = RunFolder(path)
        manifest = folder.manifest()
        config = manifest.config
        key = (config.dataset_digest, tuple(config.task_ids), config.n, config.seed, config.augment)
        groups.setdefault(key, []).append(LoadedRun(folder, manifest, score_saved(folder, manifest)))
    return [_section(tuple(runs)) for runs in groups.values()]


def _section(runs: tuple[LoadedRun, ...]) -> Section:
    names = [scores.model for run in runs for scores in run.scored]
    scored = tuple(
        scores if names.count(scores.model) == 1 else replace(scores, model=f"{run.name}@{scores.model}")
        for run in runs
        for scores in run.scored
    )
    config = runs[0].manifest.config
    results = make_results(scored, config.n, config.seed)
    return Section(config.dataset, runs, tuple(declared_tasks(runs[0].manifest)), scored, results)

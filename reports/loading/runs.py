"""Runs as reports need them: scored, and gathered by the dataset they sampled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.core.errors import RunError
from harness.core.grid import Task
from harness.data.dataset import content_digest
from harness.runs.folder import RunFolder
from harness.runs.schema import Cost, Manifest, ModelConfig, Results
from harness.scoring.costs import CostMeter
from harness.scoring.paired_comparison import Paired, against_first, all_pairs, compare_pairs, correct_together
from harness.scoring.run_scores import ModelScores, declared_tasks, make_results, score_saved

MOST_FOR_ALL_PAIRS = 6
"""With more models each is compared with one only: every pair would bury the page, and Holm's correction all of it."""


@dataclass(frozen=True)
class LoadedRun:
    """One run folder with what was computed from its predictions."""

    name: str
    """The name of its folder, with its parent's where two have the same."""
    folder: RunFolder
    manifest: Manifest
    tasks: tuple[Task, ...]
    """The tasks that it declared."""
    scored: list[ModelScores]
    cost: Mapping[str, Cost]
    """What each model's predictions cost, by its name in the run."""


@dataclass(frozen=True, eq=False)
class Section:
    """Runs over the same tasks with the same N and views, whose models may be compared."""

    dataset: str
    heading: str
    """The dataset, with N and seed where the report has several sections of it."""
    runs: tuple[LoadedRun, ...]
    tasks: tuple[Task, ...]
    scored: tuple[ModelScores, ...]
    """Every model of every run; named RUN@MODEL where a name alone is not unique."""
    results: Results
    baseline: str | None = None
    """The model that all others are compared with, the first one of many; None compares every pair."""
    pairs: tuple[Paired, ...] = ()
    """Its comparisons, Holm-corrected over those of all sections of the report."""
    family: int = 0
    """How many those are."""

    @property
    def n(self) -> int:
        """Predictions a test output."""
        return self.runs[0].manifest.config.n

    @property
    def seed(self) -> int:
        """The seed of views, intervals and tests."""
        return self.runs[0].manifest.config.seed

    @property
    def rated(self) -> list[ModelScores]:
        """The models whose means over predictions are known; early stopping can leave them open."""
        return [scores for scores in self.scored if "accuracy" in scores.measured]

    @property
    def whole(self) -> list[ModelScores]:
        """The models with all N predictions of every output."""
        return [s for s in self.scored if s.stopping is None or s.stopping.first_round == self.n]

    def compared(self) -> list[Paired]:
        """Return the comparisons of this section, Holm-corrected by themselves."""
        if self.every_pair:
            return compare_pairs(all_pairs(self.scored), self.seed)
        first = sorted(self.scored, key=lambda scores: scores.model != self.reference)
        return compare_pairs(against_first(first), self.seed)

    @property
    def every_pair(self) -> bool:
        """Whether every pair of models is compared, or each model with the reference only."""
        return self.baseline is None

    @property
    def reference(self) -> str:
        """The model that pictures of two models set the others against: the baseline, else the first."""
        return self.baseline or self.scored[0].model

    def asked(self) -> list[tuple[LoadedRun, str, ModelConfig]]:
        """For each model its run, its name in this report, and how it was asked; in the order of ``scored``."""
        own = [(run, config) for run in self.runs for config in run.manifest.config.models]
        return [(run, scores.model, config) for (run, config), scores in zip(own, self.scored, strict=True)]


def load_sections(paths: Sequence[Path], baseline: str | None = None) -> list[Section]:
    """The runs in these folders as sections, in the order in which their datasets first come.

    Args:
        baseline: the model that all others are compared with, in the sections that have it.

    Raises:
        RunError, DataError: a folder is not a run, a file of it is broken, or no section has the baseline.
    """
    groups: dict[tuple[object, ...], list[LoadedRun]] = {}
    for path, name in zip(paths, _names(paths), strict=True):
        folder = RunFolder(path)
        manifest = folder.manifest()
        config = manifest.config
        tasks = declared_tasks(manifest)
        key = (tuple((task.id, content_digest(task)) for task in tasks), config.n, config.seed, config.augment)
        if not folder.predictions_path.exists():
            raise RunError(
                f"{folder.predictions_path} is missing: the run stopped before its first prediction, or the file is "
                "lost; complete the run with bench run --resume"
            )
        meter = CostMeter()
        scored = score_saved(folder, manifest, meter, tasks)
        groups.setdefault(key, []).append(LoadedRun(name, folder, manifest, tuple(tasks), scored, meter.costs()))
    datasets = [runs[0].manifest.config.dataset for runs in groups.values()]
    sections = [_section(tuple(runs), datasets, baseline) for runs in groups.values()]
    if baseline is not None and baseline not in (known := all_models(sections)):
        raise RunError(f"no run has a model {baseline!r} to be the baseline; they have: {', '.join(known)}")
    compared = correct_together([section.compared() for section in sections])
    family = sum(map(len, compared))
    return [replace(s, pairs=tuple(rows), family=family) for s, rows in zip(sections, compared, strict=True)]


def all_models(sections: Sequence[Section]) -> list[str]:
    """Every model of a report, in the order in which it first comes: its place decides its look in all pictures."""
    return list(dict.fromkeys(scores.model for section in sections for scores in section.scored))


def _names(paths: Sequence[Path]) -> list[str]:
    full = [path.resolve() for path in paths]
    if repeated := [str(path) for path, own in zip(paths, full, strict=True) if full.count(own) > 1]:
        raise RunError(f"{repeated[0]} is named twice")
    plain = [path.name for path in full]
    return [path.name if plain.count(path.name) == 1 else f"{path.parent.name}/{path.name}" for path in full]


def _section(runs: tuple[LoadedRun, ...], datasets: Sequence[str], baseline: str | None) -> Section:
    names = [scores.model for run in runs for scores in run.scored]
    scored = tuple(
        scores if names.count(scores.model) == 1 else replace(scores, model=f"{run.name}@{scores.model}")
        for run in runs
        for scores in run.scored
    )
    config = runs[0].manifest.config
    heading = config.dataset
    if datasets.count(config.dataset) > 1:
        heading += f" (N = {config.n}, seed {config.seed}{'' if config.augment else ', one view'})"
    known = [scores.model for scores in scored]
    if baseline not in known:
        baseline = None if len(known) <= MOST_FOR_ALL_PAIRS else known[0]
    return Section(
        config.dataset,
        heading,
        runs,
        runs[0].tasks,
        scored,
        make_results(scored, config.n, config.seed),
        baseline,
    )

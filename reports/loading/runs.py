"""Load run folders and group them into sections, one per dataset, seed and number of predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from harness.core.errors import RunError
from harness.core.grid import Task
from harness.data.dataset import content_digest
from harness.runs.schemas.results_schema import Results
from harness.scoring.model_scores import ModelScores, make_results
from harness.scoring.paired_comparison import (
    PairedComparison,
    all_pairs,
    compare_pairs,
    correct_together,
    pairs_with_first,
)
from reports.loading.loaded_run import LoadedRun, load_run

MOST_FOR_ALL_PAIRS = 6
"""With more models than this, each model is compared with the first only. Comparing every pair would make the page
long and Holm's correction severe."""


@dataclass(frozen=True, eq=False)
class Section:
    """Runs on the same tasks with the same N, seed and augmentation, so that their models can be compared."""

    number: int
    """Position in the report, from 1."""
    dataset: str
    heading: str
    """The dataset, followed by N and seed if the report has several sections on it."""
    runs: tuple[LoadedRun, ...]
    tasks: tuple[Task, ...]
    scored: tuple[ModelScores, ...]
    """Scores of every model of every run by the headline rule. A model is named RUN@MODEL if its name alone is not
    unique."""
    voted: tuple[ModelScores, ...]
    """The same by the vote."""
    results: Results
    baseline: str | None
    """The model that every other model is compared with, or None if every pair is compared."""
    pairs: tuple[PairedComparison, ...] = ()
    """Comparisons of this section, Holm-corrected over the comparisons of all sections."""
    family_size: int = 0
    """Number of comparisons corrected together."""

    @property
    def n(self) -> int:
        """Return the number of predictions per test output."""
        return self.results.n

    @property
    def seed(self) -> int:
        """Return the seed of augmentations, intervals and tests."""
        return self.results.seed

    @property
    def rated(self) -> list[ModelScores]:
        """Return the models with a known accuracy; early stopping can make it unknown."""
        return [scores for scores in self.scored if "accuracy" in scores.measured]

    @property
    def fully_sampled(self) -> list[ModelScores]:
        """Return the models that have all N predictions for every test output, scored by the vote."""
        return [s for s in self.voted if s.stopping is None or s.stopping.first_round == self.n]

    @property
    def reference(self) -> str:
        """Return the model that plots of two models compare the others with: the baseline, else the first model."""
        return self.baseline or self.scored[0].model

    def compare_models(self) -> list[PairedComparison]:
        """Return the comparisons of this section, Holm-corrected over this section alone."""
        if self.baseline is None:
            return compare_pairs(all_pairs(self.scored), self.seed)
        baseline_first = sorted(self.scored, key=lambda scores: scores.model != self.baseline)
        return compare_pairs(pairs_with_first(baseline_first), self.seed)

    def models_with_runs(self) -> list[tuple[str, LoadedRun, str]]:
        """Return each model's name in this report, its run, and its name there, in the order of ``scored``."""
        names = [(run, scores.model) for run in self.runs for scores in run.scored]
        return [(scores.model, run, name) for scores, (run, name) in zip(self.scored, names, strict=True)]


def load_sections(
    paths: Sequence[Path], baseline: str | None = None, rule: str | None = None, scorer: str | None = None
) -> list[Section]:
    """Load run folders and group them into sections, in the order in which their datasets first occur.

    Args:
        baseline: model to compare every other model with, in the sections that have it.
        rule: the headline rule of all runs; None takes each run's own.
        scorer: whose rescores the rules that need them use, where several models rescored.

    Raises:
        RunError, DataError: a folder is not a run, one of its files is broken, or no section has the baseline.
    """
    groups: dict[tuple[object, ...], list[LoadedRun]] = {}
    for path, name in zip(paths, _run_names(paths), strict=True):
        run = load_run(path, name, rule, scorer)
        config = run.manifest.config
        digests = tuple((task.id, content_digest(task)) for task in run.tasks)
        groups.setdefault((digests, config.n, config.seed, config.augment), []).append(run)
    datasets = [runs[0].manifest.config.dataset for runs in groups.values()]
    sections = [_section(k, tuple(runs), datasets, baseline) for k, runs in enumerate(groups.values(), 1)]
    if baseline is not None and baseline not in (known := all_models(sections)):
        raise RunError(f"no run has a model {baseline!r} to be the baseline; they have: {', '.join(known)}")
    compared = correct_together([section.compare_models() for section in sections])
    family_size = sum(map(len, compared))
    return [replace(s, pairs=tuple(rows), family_size=family_size) for s, rows in zip(sections, compared, strict=True)]


def all_models(sections: Sequence[Section]) -> list[str]:
    """Return every model of a report once, in order of first occurrence. Its index decides its look in all plots."""
    return list(dict.fromkeys(scores.model for section in sections for scores in section.scored))


def _run_names(paths: Sequence[Path]) -> list[str]:
    """Return a unique name for each run folder.

    Raises:
        RunError: two paths lead to the same folder.
    """
    full = [path.resolve() for path in paths]
    if repeated := [str(path) for path, target in zip(paths, full, strict=True) if full.count(target) > 1]:
        raise RunError(f"{repeated[0]} is named twice")
    return [_shortest_name(path, full) for path in full]


def _shortest_name(path: Path, paths: Sequence[Path]) -> str:
    """Return the shortest end of a path that no other of the paths has."""
    lengths = range(1, len(path.parts) + 1)
    ends = ((path.parts[-n:], [other.parts[-n:] for other in paths]) for n in lengths)
    return str(Path(*next(end for end, others in ends if others.count(end) == 1)))


def _section(number: int, runs: tuple[LoadedRun, ...], datasets: Sequence[str], baseline: str | None) -> Section:
    """Return a section without its comparisons.

    Args:
        datasets: the datasets of all sections, to see whether this one is unique.
    """
    scored, voted = _uniquely_named(runs, "scored"), _uniquely_named(runs, "voted")
    config = runs[0].manifest.config
    heading = config.dataset
    if datasets.count(config.dataset) > 1:
        heading += f" (N = {config.n}, seed {config.seed}{'' if config.augment else ', one view'})"
    models = [scores.model for scores in scored]
    if baseline not in models:
        baseline = None if len(models) <= MOST_FOR_ALL_PAIRS else models[0]
    results = make_results(scored, config.n, config.seed)
    return Section(number, config.dataset, heading, runs, runs[0].tasks, scored, voted, results, baseline)


def _uniquely_named(runs: Sequence[LoadedRun], kind: Literal["scored", "voted"]) -> tuple[ModelScores, ...]:
    """Return the scores of every model of every run, a model as RUN@MODEL if its name alone is not unique."""
    rows = [(run, scores) for run in runs for scores in (run.scored if kind == "scored" else run.voted)]
    names = [scores.model for _, scores in rows]
    return tuple(
        scores if names.count(scores.model) == 1 else replace(scores, model=f"{run.name}@{scores.model}")
        for run, scores in rows
    )

"""Rank the predictions of the gallery's tasks: the best grids of each model by the headline rule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass

from harness.core.grid import Pair, Task
from harness.predictions.model_rescores import NOT_RESCORED
from harness.voting.ranking import RankedGrid
from harness.voting.selection_rules import RULES, VOTE
from reports.gallery.choose import GalleryTask
from reports.loading.loaded_run import LoadedRun
from reports.loading.runs import Section

GRIDS_SHOWN = 3
"""Grids shown per model; one less if there are more than two models."""


@dataclass(frozen=True)
class TopGrids:
    """The vote of one model on one test output: its best-ranked grids and the rank of the exact grid."""

    model: str
    n: int
    """Number of predictions, or of enumerated views, failures included."""
    top: tuple[RankedGrid, ...]
    exact_rank: int | None
    """From 1; None if no prediction is exact."""
    exact_votes: int


@dataclass(frozen=True, slots=True)
class RankedOutput:
    """The candidates of one model for one test output, best first."""

    ranking: list[RankedGrid]
    n: int
    """Number of predictions, or of enumerated views, failures included."""


TopByOutput = dict[tuple[str, int], list[TopGrids]]
"""By task id and test index: one entry per model, in the order of the section."""


def top_grids(gallery: Sequence[GalleryTask]) -> list[TopByOutput]:
    """Return the votes on each task of the gallery. The predictions of each run are read once."""
    sections = {entry.section.number: entry.section for entry in gallery}
    by_section = {}
    for number, section in sections.items():
        tasks = [entry.task for entry in gallery if entry.section.number == number]
        count = GRIDS_SHOWN if len(section.scored) <= 2 else GRIDS_SHOWN - 1
        by_section[number] = section_tops(section, tasks, count)
    return [
        {key: top for key, top in by_section[entry.section.number].items() if key[0] == entry.task.id}
        for entry in gallery
    ]


def section_tops(section: Section, tasks: Sequence[Task], count: int) -> TopByOutput:
    """Return the votes on some tasks of a section. The predictions of each run are read once.

    Args:
        count: best-ranked grids per model.
    """
    tests = {task.id: task.test for task in tasks}
    models = {(run.name, name): model for model, run, name in section.models_with_runs()}
    order = {scores.model: place for place, scores in enumerate(section.scored)}
    tops: dict[tuple[str, int], dict[int, TopGrids]] = {}
    for run in section.runs:
        for (name, task_id, index), output in _rank_outputs(run, tests.keys()):
            model = models[run.name, name]
            top = _top(model, output, tests[task_id][index], count)
            tops.setdefault((task_id, index), {})[order[model]] = top
    return {
        (task.id, index): [top for _, top in sorted(tops[task.id, index].items())]
        for task in tasks
        for index in range(len(task.test))
    }


def _rank_outputs(run: LoadedRun, task_ids: Set[str]) -> Iterator[tuple[tuple[str, str, int], RankedOutput]]:
    """Yield (model, task id, test index) and the candidates by the headline rule, for every model and some tasks."""
    saved = run.reopen()
    for predictions, scores in zip(saved.predictions, run.scored, strict=True):
        rule = RULES[VOTE if scores.rule is None else scores.rule.name]
        rescores = saved.rescores.get(predictions.model, NOT_RESCORED)
        for task_id in task_ids:
            for index, output in enumerate(predictions.outputs[task_id]):
                ranking = rescores.rank(rule, task_id, index, output.votes())
                yield (predictions.model, task_id, index), RankedOutput(ranking, output.count)


def _top(model: str, output: RankedOutput, pair: Pair, count: int) -> TopGrids:
    groups = output.ranking
    exact = next((i for i, group in enumerate(groups, 1) if group.grid == pair.output), None)
    return TopGrids(model, output.n, tuple(groups[:count]), exact, groups[exact - 1].count if exact else 0)

"""Rank the predictions of the gallery's tasks: the best grids of each model by the headline rule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass

from harness.core.grid import Pair
from harness.scoring.rule_scores import NOT_RESCORED
from harness.voting.ranking import RankedGrid
from harness.voting.selection_rules import RULES, VOTE
from reports.gallery.choose import GalleryTask
from reports.loading.loaded_run import LoadedRun

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
    tasks_of = {number: {e.task.id for e in gallery if e.section.number == number} for number in sections}
    ranked: dict[tuple[int, str, str, str, int], RankedOutput] = {}
    for number, section in sections.items():
        for run in section.runs:
            for (model, task_id, index), output in _rank_outputs(run, tasks_of[number]):
                ranked[number, run.name, model, task_id, index] = output
    tops: list[TopByOutput] = []
    for entry in gallery:
        models = entry.section.models_with_runs()
        count = GRIDS_SHOWN if len(models) <= 2 else GRIDS_SHOWN - 1
        task, number = entry.task, entry.section.number
        tops.append(
            {
                (task.id, index): [
                    _top(model, ranked[number, run.name, name, task.id, index], pair, count)
                    for model, run, name in models
                ]
                for index, pair in enumerate(task.test)
            }
        )
    return tops


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

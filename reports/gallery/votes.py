"""Rank the predictions of the gallery's tasks: the most frequent grids of each model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.core.grid import Pair
from harness.runs.prediction_reader import EnumeratedView, Prediction, read_predictions, read_views
from harness.scoring.enumerated_outputs import view_votes
from harness.voting.ranking import RankedGrid, Vote, rank_votes
from reports.gallery.choose import GalleryTask
from reports.loading.runs import LoadedRun

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


TopByOutput = dict[tuple[str, int], list[TopGrids]]
"""By task id and test index: one entry per model, in the order of the section."""


def top_grids(gallery: Sequence[GalleryTask]) -> list[TopByOutput]:
    """Return the votes on each task of the gallery. The predictions of each run are read once."""
    sections = {entry.section.number: entry.section for entry in gallery}
    tasks_of = {number: {e.task.id for e in gallery if e.section.number == number} for number in sections}
    votes: dict[tuple[int, str, str, str, int], list[list[Vote]]] = {}
    for number, section in sections.items():
        for run in section.runs:
            for answer, answer_votes in _read_votes(run):
                if answer.task_id in tasks_of[number]:
                    key = (number, run.name, answer.model, answer.task_id, answer.test_index)
                    votes.setdefault(key, []).append(answer_votes)
    tops: list[TopByOutput] = []
    for entry in gallery:
        models = entry.section.models_with_runs()
        count = GRIDS_SHOWN if len(models) <= 2 else GRIDS_SHOWN - 1
        task, number = entry.task, entry.section.number
        tops.append(
            {
                (task.id, index): [
                    _rank_votes(model, votes.get((number, run.name, config.name, task.id, index), []), pair, count)
                    for model, run, config in models
                ]
                for index, pair in enumerate(task.test)
            }
        )
    return tops


def _read_votes(run: LoadedRun) -> Iterator[tuple[Prediction | EnumeratedView, list[Vote]]]:
    """Yield each prediction with its vote, if it has a grid, or each enumerated view with its votes."""
    path = run.folder.predictions_path
    if run.manifest.config.search is not None:
        yield from ((view, view_votes(view)) for view in read_views(path))
        return
    for answer in read_predictions(path):
        yield answer, [] if answer.grid is None else [Vote(answer.grid, answer.mean_logprob)]


def _rank_votes(model: str, votes: Sequence[Sequence[Vote]], pair: Pair, count: int) -> TopGrids:
    groups = rank_votes([vote for answer in votes for vote in answer])
    exact = next((i for i, group in enumerate(groups, 1) if group.grid == pair.output), None)
    return TopGrids(model, len(votes), tuple(groups[:count]), exact, groups[exact - 1].count if exact else 0)

"""Rank the predictions of the gallery's tasks: the most frequent grids of each model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.core.grid import Pair
from harness.runs.prediction_reader import read_predictions
from harness.voting.ranking import RankedGrid, Vote, rank_votes
from reports.gallery.choose import GalleryTask

GRIDS_SHOWN = 3
"""Grids shown per model; one less if there are more than two models."""


@dataclass(frozen=True)
class TopGrids:
    """The vote of one model on one test output: its best-ranked grids and the rank of the exact grid."""

    model: str
    n: int
    """Number of predictions, failures included."""
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
    votes: dict[tuple[int, str, str, str, int], list[Vote | None]] = {}
    for number, section in sections.items():
        for run in section.runs:
            for answer in read_predictions(run.folder.predictions_path):
                if answer.task_id in tasks_of[number]:
                    vote = None if answer.grid is None else Vote(answer.grid, answer.mean_logprob)
                    key = (number, run.name, answer.model, answer.task_id, answer.test_index)
                    votes.setdefault(key, []).append(vote)
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


def _rank_votes(model: str, votes: Sequence[Vote | None], pair: Pair, count: int) -> TopGrids:
    groups = rank_votes([vote for vote in votes if vote is not None])
    exact = next((i for i, group in enumerate(groups, 1) if group.grid == pair.output), None)
    return TopGrids(model, len(votes), tuple(groups[:count]), exact, groups[exact - 1].count if exact else 0)

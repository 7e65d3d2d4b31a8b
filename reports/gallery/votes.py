"""What the models answered to the tasks of the gallery: the top grids of each vote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.core.grid import Pair
from harness.runs.prediction_reader import read_predictions
from harness.voting.ranking import RankedGrid, Vote, rank_votes
from reports.gallery.choose import Shown

SHOWN_GRIDS = 3
"""Grids shown of each vote; two where there are more than two models."""


@dataclass(frozen=True)
class TopGrids:
    """The vote of one model on one test output: its best-ranked grids, and where the exact one stands."""

    model: str
    n: int
    """Predictions that were made, failures included."""
    top: tuple[RankedGrid, ...]
    exact_place: int | None
    """From 1; None where no prediction is exact."""
    exact_votes: int


TopByOutput = dict[tuple[str, int], list[TopGrids]]
"""By task id and test index, the models' votes in the order of the section."""


def gather_top(shown: Sequence[Shown]) -> list[TopByOutput]:
    """The votes on each shown task; the predictions of each run are read once.

    Returns:
        One entry for each of ``shown``.
    """
    wanted = {id(entry.section): {e.task.id for e in shown if e.section is entry.section} for entry in shown}
    votes: dict[tuple[int, str, str, str, int], list[Vote | None]] = {}
    for key, section in {id(entry.section): entry.section for entry in shown}.items():
        for run in section.runs:
            for answer in read_predictions(run.folder.predictions_path):
                if answer.task_id in wanted[key]:
                    vote = None if answer.grid is None else Vote(answer.grid, answer.mean_logprob)
                    place = (key, run.name, answer.model, answer.task_id, answer.test_index)
                    votes.setdefault(place, []).append(vote)
    found: list[TopByOutput] = []
    for entry in shown:
        asked = entry.section.asked()
        most = SHOWN_GRIDS if len(asked) <= 2 else SHOWN_GRIDS - 1
        tops: TopByOutput = {}
        for index, pair in enumerate(entry.task.test):
            tops[entry.task.id, index] = [
                _top(model, votes.get((id(entry.section), run.name, config.name, entry.task.id, index), []), pair, most)
                for run, model, config in asked
            ]
        found.append(tops)
    return found


def _top(model: str, votes: Sequence[Vote | None], pair: Pair, most: int) -> TopGrids:
    groups = rank_votes([vote for vote in votes if vote is not None])
    place = next((i for i, group in enumerate(groups, 1) if group.grid == pair.output), None)
    return TopGrids(model, len(votes), tuple(groups[:most]), place, groups[place - 1].count if place else 0)

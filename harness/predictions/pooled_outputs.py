"""Predictions of several members as those of one model: one vote for each distinct view and grid."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from harness.candidates.pool_schema import PoolMember
from harness.core.grid import Grid
from harness.predictions.prediction_groups import ModelPredictions, OutputPredictions
from harness.runs.schemas.prediction_schema import OutputKey
from harness.voting.metrics import OutputScore
from harness.voting.pooled_metrics import score_pooled_votes
from harness.voting.ranking import Vote

POOL = "pool"
"""The name of the one model of a pool."""
NO_CANDIDATE = "no_candidate"
"""The kind of failure of a view in which no member proposed a grid."""


@dataclass(slots=True)
class PooledOutput(OutputPredictions):
    """The views of one test output in a pool, or in one member. A view may have votes for several grids."""

    @property
    def count(self) -> int:
        """The number of views in which a grid was proposed."""
        return len(self.samples())

    def samples(self) -> list[int]:
        """Return the indices of the views in which a grid was proposed."""
        return sorted({vote.view_index for vote in self.votes()})

    def score(self, truth: Grid, n: int) -> OutputScore:
        """Return the scores of n requested views."""
        return score_pooled_votes(self.votes(), truth, n)


@dataclass(frozen=True, slots=True)
class MemberPredictions:
    """The predictions of one member of a pool that are grids."""

    record: PoolMember
    votes: Mapping[OutputKey, Sequence[Vote]]
    """``view_index`` is the index among the views of the member's view space."""

    def predictions(self, outputs: Mapping[str, int]) -> ModelPredictions:
        """Return the predictions of this member alone, with every vote that it gave.

        Args:
            outputs: as for ``group_predictions``.
        """
        grouped = _group(outputs, self.votes)
        failures = _failures(grouped, self.record.views)
        return ModelPredictions(self.record.name, grouped, failures, self.record.names_views)


def pooled_predictions(members: Sequence[MemberPredictions], outputs: Mapping[str, int]) -> ModelPredictions:
    """Return the predictions of all members as those of one model.

    Members of one view space have the same views. Where several predictions of one view have the same grid, they are
    one vote, with the largest of their probabilities and the first of their samples. So a member that is added
    twice, or that proposes what others propose with smaller probabilities, changes nothing.

    Args:
        outputs: as for ``group_predictions``.
    """
    votes = [(member.record.view_space, member.votes) for member in members]
    views = distinct_views([member.record for member in members])
    has_views = all(member.record.names_views for member in members if member.votes)
    return merged_predictions(votes, outputs, views, has_views)


def merged_predictions(
    votes: Sequence[tuple[str, Mapping[OutputKey, Sequence[Vote]]]],
    outputs: Mapping[str, int],
    views: int | None,
    has_views: bool,
) -> ModelPredictions:
    """Return votes of several view spaces as those of one model; see ``pooled_predictions``.

    Args:
        votes: view spaces, in any order and repeated at will, each with its votes by test output.
        outputs: as for ``group_predictions``.
        views: the number of views that were requested for a test output; None takes the largest number that a test
            output has.
        has_views: whether the votes name the symmetry of their view.
    """
    keys = [(task, index) for task, count in outputs.items() for index in range(count)]
    merged = {key: merge_votes((space, by_key.get(key, ())) for space, by_key in votes) for key in keys}
    grouped = _group(outputs, merged)
    if views is None:
        views = max((output.count for group in grouped.values() for output in group), default=0)
    return ModelPredictions(POOL, grouped, _failures(grouped, views), has_views)


def merge_votes(votes: Iterable[tuple[str, Iterable[Vote]]]) -> list[Vote]:
    """Return one vote for each distinct view and grid; ``view_index`` numbers the views of all view spaces.

    Args:
        votes: view spaces, in any order and repeated at will, each with votes for one test output.
    """
    merged: dict[tuple[str, int, Grid], Vote] = {}
    for space, space_votes in votes:
        for vote in space_votes:
            key = (space, vote.view_index, vote.grid)
            merged[key] = vote if (other := merged.get(key)) is None else _stronger(vote, other)
    numbers = {view: number for number, view in enumerate(sorted({(space, view) for space, view, _ in merged}))}
    return [replace(vote, view_index=numbers[space, view]) for (space, view, _), vote in merged.items()]


def distinct_views(members: Iterable[PoolMember]) -> int:
    """Return the number of distinct views that were requested for a test output."""
    views: dict[str, int] = {}
    for member in members:
        views[member.view_space] = max(views.get(member.view_space, 0), member.views)
    return sum(views.values())


def lacks_logprobs(predictions: ModelPredictions) -> str | None:
    """Return why the probabilities of a pool's votes cannot be added up; None if they can, and if it is no pool."""
    outputs = [output for outputs in predictions.outputs.values() for output in outputs]
    if not any(isinstance(output, PooledOutput) for output in outputs):
        return None
    unknown = [vote.sum_logprob is None for output in outputs for vote in output.votes()]
    if not any(unknown):
        return None
    return f"{sum(unknown)} of the pool's {len(unknown)} votes have no log-probability, those of others' files"


def _stronger(vote: Vote, other: Vote) -> Vote:
    """Return the vote with the larger probability, and the first sample of both."""
    strongest = max(vote, other, key=lambda v: (_known(v.sum_logprob), _known(v.mean_logprob)))
    return replace(strongest, sample=min(vote.sample, other.sample))


def _known(value: float | None) -> float:
    return -math.inf if value is None else value


def _group(
    outputs: Mapping[str, int], votes: Mapping[OutputKey, Sequence[Vote]]
) -> dict[str, tuple[OutputPredictions, ...]]:
    """Return the votes by task and test output, and in each by grid."""
    grouped: dict[str, tuple[OutputPredictions, ...]] = {}
    for task, count in outputs.items():
        grouped[task] = tuple(PooledOutput() for _ in range(count))
        for index, output in enumerate(grouped[task]):
            for vote in votes.get((task, index), ()):
                output.votes_by_grid.setdefault(vote.grid, []).append(vote)
    return grouped


def _failures(grouped: Mapping[str, Sequence[OutputPredictions]], views: int) -> dict[str, int]:
    """Return the number of views without a candidate, by kind of failure."""
    count = sum(views - output.count for outputs in grouped.values() for output in outputs)
    return {NO_CANDIDATE: count} if count else {}

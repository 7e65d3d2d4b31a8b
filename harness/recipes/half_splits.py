"""Scores of two halves of a model's predictions, from which the variance of sampling follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.scoring.model_scores import true_outputs
from harness.scoring.prediction_loader import SavedPredictions
from harness.stats.bootstrap import Floats
from harness.stats.recipes import sampling_variance
from harness.voting.metrics import TaskScores, average_outputs, score_votes

MEANS = ("accuracy", "correct_size", "correct_pixels", "unanswered")
"""Metrics that are means over predictions, whose sampling variance half-splits give."""


@dataclass(frozen=True, slots=True)
class HalfScores:
    """Scores of one model from the earlier and from the later half of its predictions."""

    first: TaskScores
    second: TaskScores
    used: float
    """Share of the predictions in the two halves together: below 1 if their number is odd."""

    def values_of(self, metric: str, ids: Sequence[str]) -> tuple[Floats, Floats]:
        """Return the scores of both halves on these tasks, each of shape (tasks,)."""
        places = [self.first.ids.index(task) for task in ids]
        return self.first.values_of(metric)[places], self.second.values_of(metric)[places]


def half_scores(saved: SavedPredictions) -> dict[str, HalfScores]:
    """Return the scores of both halves of the drawn predictions, by model.

    The halves are split by sample index, so that they have the same views for every model. Enumerated views and runs
    with fewer than two predictions have no halves. After early stopping only the first round is split.
    """
    drawn = saved.n if saved.schedule is None else saved.schedule.first_round
    half = drawn // 2
    if not half or saved.pool is not None or (saved.manifest is not None and saved.manifest.config.search is not None):
        return {}
    truths = true_outputs(saved.tasks)
    halves = {}
    for model in saved.predictions:
        scores = [
            average_outputs(
                {
                    task: [
                        score_votes([v for v in output.votes() if start <= v.sample < start + half], truth, half)
                        for output, truth in zip(outputs, truths[task], strict=True)
                    ]
                    for task, outputs in model.outputs.items()
                }
            )
            for start in (0, half)
        ]
        halves[model.model] = HalfScores(scores[0], scores[1], 2 * half / drawn)
    return halves


def halves_variance(metric: str, halves: Sequence[HalfScores | None], ids: Sequence[str]) -> float | None:
    """Return the variance of a score on a task that sampling explains, over several training runs.

    None if the metric is no mean over predictions, there are fewer than two runs, or a run has no halves.
    """
    known = [half for half in halves if half is not None]
    if metric not in MEANS or len(known) < max(2, len(halves)):
        return None
    pairs = [half.values_of(metric, ids) for half in known]
    used = sum(half.used for half in known) / len(known)
    return used * sampling_variance([first for first, _ in pairs], [second for _, second in pairs])

"""Enumerated views grouped by model, task and test output, with the votes and probabilities that they give."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from harness.candidates.enumeration import add_probabilities
from harness.core.grid import Grid
from harness.predictions.prediction_groups import ModelPredictions, OutputGroups, OutputPredictions
from harness.runs.logs.prediction_reader import EnumeratedView, Prediction
from harness.runs.schemas.view_schema import EnumerationResult, view_failure
from harness.voting.enumerated_metrics import score_views
from harness.voting.metrics import OutputScore
from harness.voting.ranking import Vote


@dataclass(slots=True)
class EnumeratedOutput(OutputPredictions):
    """One model's enumerated views of one test output.

    ``votes_by_grid`` has one vote for each view that proposed the grid, ``failed_samples`` the views that proposed
    none.
    """

    views: list[int] = field(default_factory=list)
    """Indices of all views."""
    unexplored: list[float] = field(default_factory=list)
    """Unexplored mass of each view."""
    greedy: Counter[Grid] = field(default_factory=Counter)
    """By grid, the number of views whose answer at temperature 0 it is."""
    n_answers: int = 0
    truncated: int = 0
    dropped: int = 0

    @property
    def count(self) -> int:
        """The number of views, failed ones included."""
        return len(self.views)

    def samples(self) -> list[int]:
        """Return the indices of all views."""
        return self.views

    def add_view(self, view: EnumeratedView) -> None:
        """Add one view; equal grids share one ``Grid`` object to save memory."""
        votes = view_votes(view)
        for vote in votes:
            self.votes_by_grid.setdefault(vote.grid, []).append(vote)
        if not votes:
            self.failed_samples.append(view.sample)
        if view.greedy is not None and view.greedy.grid is not None:
            self.greedy[view.greedy.grid] += 1
        self.views.append(view.sample)
        # No sample can answer a prompt that does not fit: nothing is unknown about it.
        self.unexplored.append(0.0 if view.outcome == "too_long" else view.unexplored)
        self.n_answers += len(view.answers)
        self.truncated += view.truncated
        self.dropped += view.dropped

    def score(self, truth: Grid, n: int) -> OutputScore:
        """Return the scores of the views, of which missing ones count as failures.

        Args:
            n: requested views.
        """
        return score_views(self.votes(), self.greedy, self.unexplored, truth, n)


def view_votes(view: EnumeratedView) -> list[Vote]:
    """Return the votes of a view: one for each distinct grid among its answers, in the order of the likeliest answers.

    The probabilities of answers with the same grid add up. The log-probability per token, which breaks ties, takes the
    number of tokens of the likeliest of them.
    """
    answers: dict[Grid, list[Prediction]] = {}
    for answer in view.answers:
        if answer.grid is not None:
            answers.setdefault(answer.grid, []).append(answer)
    votes = []
    symmetry = sys.intern(view.view)
    for grid, group in answers.items():
        logprob = min(0.0, add_probabilities([answer.sum_logprob or 0.0 for answer in group]))
        mean = logprob / group[0].n_tokens if group[0].n_tokens else None
        votes.append(Vote(grid, mean, logprob, symmetry, view.sample, view.sample))
    return votes


def group_views(
    views: Iterable[EnumeratedView],
    outputs: Mapping[str, int],
    models: Sequence[str] | None,
    where: str,
) -> list[ModelPredictions]:
    """Group enumerated views, in any order, by model, task and test output; see ``group_predictions``.

    Raises:
        DataError: views of undeclared models, tasks or test outputs, or a view that occurs twice, with the ids.
    """
    groups = OutputGroups(EnumeratedOutput, outputs, models)
    for view in views:
        if (output := groups.output_of(view)) is None:
            continue
        output.add_view(view)
        outcomes = [answer.outcome for answer in view.answers]
        failure = view_failure(view.outcome, outcomes, truncated=view.truncated > 0)
        if failure is not None:
            groups.failures[view.model][failure] += 1
        groups.with_views.add(view.model)
    return groups.models(where)


def enumeration_result(outputs: Sequence[OutputPredictions]) -> EnumerationResult | None:
    """Summarise for results.json what the views of a model gave; None for drawn predictions."""
    views = [output for output in outputs if isinstance(output, EnumeratedOutput)]
    if not views:
        return None
    return EnumerationResult(
        answers=sum(output.n_answers for output in views),
        candidates=sum(len(output.votes_by_grid) for output in views),
        truncated=sum(output.truncated for output in views),
        dropped=sum(output.dropped for output in views),
    )

"""Enumerated views (``--search dfs``): their configuration, and the record that closes a view in predictions.jsonl."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, model_validator

from harness.runs.schemas.prediction_schema import (
    AugmentationRecord,
    Outcome,
    PredictionKey,
    PredictionRecord,
    Record,
    omitted_if_none,
)

ViewOutcome = Literal["enumerated", "too_long", "refused", "error"]
"""What became of a view; all but ``enumerated`` are failures, named as those of predictions, and have no answers."""

BELOW_MIN_PROB = "below_min_prob"
"""The kind of failure of a view without any answer that reaches the threshold."""

Count = Annotated[int, Field(ge=0)]


class SearchConfig(Record):
    """How the answers of every view are enumerated (``--search dfs``)."""

    min_prob: Annotated[float, Field(gt=0, le=1)]
    """Every answer with at least this probability is enumerated."""
    max_answers: Annotated[int, Field(gt=0)] | None
    """Number of answers kept per view, the likeliest; None keeps all, which are at most 1/min_prob."""
    logprobs: Annotated[int, Field(gt=0)]
    """Log-probabilities requested per position, K: floor(1/min_prob) + number of stop tokens.

    With one stop token the probabilities are exact. Of several stop tokens, one that is not among the K likeliest
    tokens of its position is not counted. The recorded probability of the answer is then too low, for each such token
    by less than 1/(K + 1) of the probability of the answer's tokens; the difference counts as unexplored.
    """
    keep_greedy: Literal[True] | None = omitted_if_none()
    """Whether the answer that temperature 0 gives is kept too if it is not among the others (``--keep-greedy``)."""


class AnswerRecord(PredictionRecord):
    """An answer of an enumerated view: a line of predictions.jsonl before the view's closing record."""

    answer_index: Count
    """Index among the answers of its view, from the likeliest."""


class GreedyRecord(Record):
    """The answer that temperature 0 gives, where it is less likely than ``min_prob``."""

    outcome: Outcome
    grid: list[list[int]] | None
    text: str
    cumulative_logprob: float
    n_tokens: Count


class ViewSummary(Record):
    """The result of the search in one view."""

    outcome: ViewOutcome
    answers: Count
    """Number of answer lines before the closing record."""
    unexplored: Annotated[float, Field(ge=0, le=1)]
    """1 minus the probability of all answers of the view."""
    truncated: Count
    """Completions that were cut off at the limit on tokens."""
    dropped: Count
    """Branches that ``--max-answers`` cut off."""
    requests: Count
    """Number of completions."""
    n_tokens: Count
    """Number of generated tokens."""
    seconds: Annotated[float, Field(ge=0)]
    greedy: Count | GreedyRecord | None
    """Index of the answer that temperature 0 gives, or that answer; None where it was truncated or the view failed."""


class ViewRecord(Record):
    """The closing record of a view: the line of predictions.jsonl after its answers."""

    model: str
    task_id: str
    test_index: Count
    sample_index: Count
    """Index of the view."""
    augmentation: AugmentationRecord
    seed: int
    view: ViewSummary

    @model_validator(mode="after")
    def _check(self) -> ViewRecord:
        view = self.view
        if view.outcome != "enumerated" and (view.answers or view.greedy is not None):
            raise ValueError(f"view.answers: a view that ended as {view.outcome} has no answers")
        if isinstance(view.greedy, int) and view.greedy >= view.answers:
            raise ValueError(f"view.greedy: there is no answer {view.greedy} of {view.answers}")
        return self

    @property
    def key(self) -> PredictionKey:
        """What identifies the view in its run."""
        return self.model, self.task_id, self.test_index, self.sample_index


class EnumerationResult(Record):
    """What the enumeration of a model's views gave (``--search dfs``)."""

    answers: int
    """Number of answers, those without a grid included."""
    candidates: int
    """Number of distinct grids, added up over test outputs."""
    truncated: int
    """Completions that were cut off at the limit on tokens."""
    dropped: int
    """Branches that ``--max-answers`` cut off."""


def view_failure(outcome: str, answer_outcomes: Sequence[str], *, truncated: bool) -> str | None:
    """Return why a view proposed no grid, as a kind of failure; None if it proposed one.

    It is the failure of the view, else of its likeliest answer, else ``truncated`` or ``below_min_prob``.

    Args:
        outcome: of the view.
        answer_outcomes: of its answers, likeliest first.
        truncated: whether a completion was cut off at the limit on tokens.
    """
    if outcome != "enumerated":
        return outcome
    if "grid" in answer_outcomes:
        return None
    if answer_outcomes:
        return answer_outcomes[0]
    return "truncated" if truncated else BELOW_MIN_PROB

"""What the predictions of a run cost, by model, counted while they are read for scoring."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from harness.runs.prediction_reader import Prediction
from harness.runs.schema import Cost

_NEVER_SENT = "too_long"


class CostMeter:
    """Counts the answers that pass through it."""

    def __init__(self) -> None:
        self._requests: dict[str, int] = {}
        self._tokens: dict[str, int] = {}
        self._seconds: dict[str, float] = {}

    def count(self, answers: Iterable[Prediction]) -> Iterator[Prediction]:
        """The same answers, counted."""
        for answer in answers:
            model = answer.model
            self._requests[model] = self._requests.get(model, 0) + (answer.outcome != _NEVER_SENT)
            self._tokens[model] = self._tokens.get(model, 0) + (answer.n_tokens or 0)
            self._seconds[model] = self._seconds.get(model, 0.0) + answer.seconds
            yield answer

    def costs(self) -> dict[str, Cost]:
        """By model, what was counted so far."""
        return {
            model: Cost(requests=count, tokens=self._tokens[model], seconds=round(self._seconds[model], 3))
            for model, count in sorted(self._requests.items())
        }

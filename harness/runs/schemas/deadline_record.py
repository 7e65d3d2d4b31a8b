"""Records of deadlines (``--deadline``): what they left out of a run, of its results, and of rescores."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from harness.core.deadline import duration_text
from harness.runs.schemas.prediction_schema import Record

Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class RunDeadline(Record):
    """The deadline of a run's last session. It changes no prediction, only how many there are."""

    seconds: Seconds
    """From the start of the command to the deadline."""
    passed: str | None = None
    """UTC time in ISO 8601 at which it ended the session; None if it did not."""
    missing: dict[str, Count] = Field(default_factory=dict)
    """By model, the requested predictions or views that it left out; empty if it did not end the session."""
    requested: dict[str, Count] = Field(default_factory=dict)
    """By model, how many predictions or views the run requests; empty likewise."""

    def text(self, noun: str) -> str:
        """Return what is missing as a phrase, such as ``missing by the deadline (12h): 3 of 40 predictions``.

        Args:
            noun: what is counted.
        """
        total, requested = sum(self.missing.values()), sum(self.requested.values())
        by_model = ", ".join(f"{model} {count:,}" for model, count in self.missing.items())
        models = f" ({by_model})" if len(self.missing) > 1 else ""
        return f"missing by the deadline ({duration_text(self.seconds)}): {total:,} of {requested:,} {noun}{models}"


class DeadlineResult(Record):
    """What a run's deadline left out of one model's predictions; these are no failures."""

    missing: Count
    """Requested predictions or views that were not made."""
    outputs: Count
    """Test outputs that lack some."""
    tasks_without: Count
    """Tasks without any prediction."""


class RescoreDeadline(Record):
    """The deadline that ended the last session of a scorer, and what it left out."""

    seconds: Seconds
    passed: str
    """UTC time in ISO 8601."""
    missing: Annotated[int, Field(gt=0)]
    """Log-probabilities that were not computed."""
    total: Annotated[int, Field(gt=0)]
    """Log-probabilities of all candidates under all views."""

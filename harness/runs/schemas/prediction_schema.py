"""One line of predictions.jsonl, as a pydantic model, and the base class of all records."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Outcome = Literal["grid", "truncated", "unparsed", "bad_shape", "bad_value", "too_long", "refused", "error", "missing"]
"""What became of a prediction; all but ``grid`` are failures.

``truncated``: the answer reached the token limit. ``unparsed``, ``bad_shape``, ``bad_value``: it holds no valid grid.
``too_long``: the prompt does not fit into the model's context. ``refused``: the server rejected the request. ``error``:
the request failed until it was given up. ``missing``: there is no prediction.
"""
FAILURES: tuple[Outcome, ...] = (
    "truncated", "unparsed", "bad_shape", "bad_value", "too_long", "refused", "error", "missing",
)  # fmt: skip
OutputKey = tuple[str, int]
"""(task id, test index), which identifies a test output."""
PredictionKey = tuple[str, str, int, int]
"""(model, task id, test index, sample index), which identifies a drawn prediction, or a view, in its run."""


class Record(BaseModel):
    """Base class of all records: unknown fields are an error, and instances are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def omitted_if_none() -> Any:
    """Return the default of an optional field that is left out of the file where it is None.

    So a field that only new kinds of runs have leaves the files of the others as they were, byte for byte.
    """
    return Field(default=None, exclude_if=lambda value: value is None)


class AugmentationRecord(Record):
    """The augmentation of a prediction's prompt (harness.core.augmentation.Augmentation as JSON)."""

    symmetry: str
    colours: list[int]
    order: list[int]


class PredictionRecord(Record):
    """A drawn prediction: one line of predictions.jsonl."""

    model: str
    task_id: str
    test_index: Annotated[int, Field(ge=0)]
    sample_index: Annotated[int, Field(ge=0)]
    augmentation: AugmentationRecord
    outcome: Outcome
    grid: list[list[int]] | None
    """The predicted grid in the task's own orientation and colours; None unless ``outcome`` is ``grid``."""
    text: str | None
    """The server's answer; None if there was none."""
    cumulative_logprob: float | None
    n_tokens: int | None
    finish_reason: str | None
    seed: int
    seconds: float
    """Duration of the last attempt of its request, divided by the number of predictions that shared the request."""

    @property
    def key(self) -> PredictionKey:
        """What identifies the prediction in its run."""
        return self.model, self.task_id, self.test_index, self.sample_index

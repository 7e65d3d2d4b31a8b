"""What the manifest of an adapter says about test-time training: one task, and the train pairs that were seen."""

from __future__ import annotations

from harness.runs.schemas.prediction_schema import Record


class TrainPairRecord(Record):
    """One train pair of the task of a test-time training."""

    index: int
    """Its index among the task's train pairs."""
    digest: str
    """``pair_digest``: 16 hex digits over both grids."""


class TaskTrainingRecord(Record):
    """The test-time training of one task. It saw the train pairs listed here, and no other data of any task."""

    task_id: str
    pairs: list[TrainPairRecord]
    leave_out: list[int]
    """How many pairs the samples left out."""
    fallback: bool
    """Whether the task had too few pairs for what the recipe leaves out, so that one pair was left out."""
    samples: int
    """Samples trained on, repetitions included."""
    planned_steps: int
    """Steps of a training that no deadline cuts."""
    start_digest: str | None = None
    """``weights_digest`` of the adapter from which it started; None for new LoRA weights."""
    inputs_digest: str
    """SHA-256 of everything that decides the adapter: recipe, base, prompt, starting adapter and train pairs."""

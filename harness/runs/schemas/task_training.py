"""Records of test-time training: its settings and plan, what its model was trained on, and a line of ttt.jsonl."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import JsonValue, ValidationError

from harness.core.errors import RunError, truncate
from harness.runs.schemas.prediction_schema import Record

TrainingOutcome = Literal["trained", "cut", "not_finite", "untrained"]
"""What became of a task's training.

``trained``: every step was done. ``cut``: a deadline ended it after some steps, whose adapter is used. ``not_finite``:
a loss or gradient was not finite. ``untrained``: no step was done. The last two leave no adapter.
"""
ProtocolLabel = Literal[
    "nothing of these tasks", "demonstrations of these tasks at test time", "these tasks", "not known"
]
"""What a model was trained on, compared with the tasks on which it is benched."""


class TaskRecord(Record):
    """One line of ttt.jsonl: a task's training, and which model answered the task; written when it is answered."""

    task_id: str
    outcome: TrainingOutcome
    adapter: str | None
    """Folder of the task's adapter, relative to the run folder; None if there is none or it was discarded."""
    digest: str | None
    """Content hash of the task's adapter, whose first 12 digits are its version; None if there is none."""
    steps: int
    samples: int
    """Samples trained on, repetitions included."""
    train_seconds: float
    reason: str | None
    """Why training was cut or gave no adapter."""
    answered_by: str
    """The model that answered as its server names it: the task's adapter, the starting adapter, or the base."""
    own_adapter: bool
    """Whether that was the task's own adapter."""
    sample_seconds: float
    """Wall time of the session that completed the task's predictions, with loading and unloading the adapter."""


class TttConfig(Record):
    """Test-time training of a run: what determines the adapters beside the train pairs of the tasks."""

    recipe: dict[str, JsonValue]
    """The recipe's keys that affect weights, flat, without deadlines."""
    base: str
    """Digest of the base model."""
    start: str | None
    """Content hash of the adapter from which every task's training starts; None for new LoRA weights."""

    def flat_values(self) -> dict[str, JsonValue]:
        """Return the recipe's keys, and base and starting adapter, as one dictionary."""
        return {**self.recipe, "base": self.base, "starting adapter": self.start}


class Protocol(Record):
    """What the model of a run was trained on, with what this was derived from."""

    label: ProtocolLabel
    trained_on: list[str]
    """Specs of the known training datasets of the adapter and base that training started from."""
    leaked_tasks: int
    """Tasks of the run of which those datasets contain a pair, up to symmetries and renamed colours."""
    reason: str
    """How the label was derived, in a sentence."""


class TttPlan(Record):
    """Content of ttt.json, which is written before anything is trained; a run is resumed only with an equal one."""

    format: Literal[1]
    model: str
    """Name of the run's model."""
    dataset: str
    dataset_digest: str
    task_ids: list[str]
    config: TttConfig
    protocol: Protocol

    @staticmethod
    def read(path: Path) -> TttPlan | None:
        """Return the plan of an earlier session; None if there is none.

        Raises:
            RunError: it is damaged.
        """
        if not path.exists():
            return None
        try:
            return TttPlan.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            why = " ".join(str(error).split())[:200]
            raise RunError(f"{path}: cannot be read ({why}); choose another --out") from None

    def changes(self, other: TttPlan) -> list[str]:
        """Return what another plan has differently, such as ``learning_rate: 0.001 -> 0.004``."""
        mine, others = (
            {
                **p.model_dump(exclude={"config", "protocol", "model"}),
                "the run's model": p.model,  # the recipe has a model, too
                **p.config.flat_values(),
            }
            for p in (self, other)
        )
        return [
            f"{key}: {truncate(str(mine.get(key)))} -> {truncate(str(others.get(key)))}"
            for key in sorted(mine.keys() | others.keys())
            if mine.get(key) != others.get(key)
        ]


def count_outcomes(records: Mapping[str, TaskRecord]) -> dict[str, int]:
    """Return how many tasks have each outcome, sorted by name."""
    outcomes = [record.outcome for record in records.values()]
    return {kind: outcomes.count(kind) for kind in sorted(set(outcomes))}

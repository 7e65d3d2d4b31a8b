"""What a run's deadline (``--deadline``) left out of one model's predictions; it is counted apart from failures."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from harness.predictions.prediction_groups import ModelPredictions
from harness.runs.schemas.deadline_record import DeadlineResult
from harness.scoring.early_stopped_scores import skipped_samples
from harness.voting.early_stopping import Schedule


@dataclass(frozen=True, slots=True)
class CutPredictions:
    """The predictions or views of one model that its run's deadline left out."""

    by_task: Mapping[str, int]
    """By task id, how many are missing; tasks with all of them are left out."""
    outputs: int
    """Test outputs that lack some."""
    tasks_without: int
    """Tasks without any prediction."""

    @property
    def total(self) -> int:
        """How many are missing."""
        return sum(self.by_task.values())

    def of_tasks(self, tasks: Collection[str]) -> dict[str, int]:
        """Return how many predictions are missing of some tasks, by task id; those with all of them are left out."""
        return {task: count for task, count in self.by_task.items() if task in tasks}

    def result(self) -> DeadlineResult:
        """Return the counts as results.json has them."""
        return DeadlineResult(missing=self.total, outputs=self.outputs, tasks_without=self.tasks_without)


def count_cut_predictions(predictions: ModelPredictions, n: int, schedule: Schedule | None = None) -> CutPredictions:
    """Count what is missing of the predictions of one model of a run that its deadline cut.

    Args:
        n: requested predictions per test output.
        schedule: the rounds of a run with early stopping; the samples that it skipped are not missing.
    """
    by_task: dict[str, int] = {}
    outputs = 0
    for task, groups in predictions.outputs.items():
        skipped = [0 if schedule is None else skipped_samples(output, schedule) for output in groups]
        missing = [n - output.count - count for output, count in zip(groups, skipped, strict=True)]
        outputs += sum(count > 0 for count in missing)
        if total := sum(missing):
            by_task[task] = total
    return CutPredictions(by_task, outputs, len(predictions.missing))

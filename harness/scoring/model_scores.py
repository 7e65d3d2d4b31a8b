"""Scores of one model: its metrics on every task, their means with intervals, and its part of results.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.core.errors import UnknownOutputError, format_ids
from harness.core.grid import Grid, Task
from harness.predictions.enumerated_outputs import EnumeratedOutput, enumeration_result
from harness.predictions.pooled_outputs import NO_CANDIDATE, PooledOutput
from harness.predictions.prediction_groups import ModelPredictions, OutputPredictions
from harness.runs.schemas.results_schema import EarlyStoppingResult, HeadlineRule, Metric, ModelResult, Results
from harness.runs.schemas.view_schema import EnumerationResult
from harness.scoring.cut_predictions import CutPredictions, count_cut_predictions
from harness.scoring.early_stopped_scores import early_stopping_result, score_output
from harness.stats.intervals import CONFIDENCE, RESAMPLES, Interval, intervals
from harness.voting.early_stopping import Schedule
from harness.voting.metrics import OutputScore, TaskScores, average_outputs


@dataclass(frozen=True, slots=True)
class ModelScores:
    """The scores of one model on the declared tasks of a run."""

    model: str
    tasks: TaskScores
    outputs: dict[str, list[OutputScore]]
    """By task id: the score of each test output."""
    failures: dict[str, int]
    """Failures by kind; requested predictions that were never sampled are ``missing``, but for those of ``cut``."""
    predictions: int
    """Requested predictions: n per test output, minus the samples that early stopping skipped. Enumerated: views."""
    stopping: EarlyStoppingResult | None = None
    enumeration: EnumerationResult | None = None
    """None for drawn predictions."""
    rule: HeadlineRule | None = None
    """The rule that gives vote_1 and vote_2, if it was chosen; None for the vote by default."""
    temperature: float | None = None
    """At which the predictions were drawn; None if unknown, and for enumerated views."""
    members: int | None = None
    """Number of members of a pool; None for other predictions."""
    cut: CutPredictions | None = None
    """What the run's deadline left out; None if no deadline cut the run."""
    is_submission: bool = False
    """Whether these are the one or two attempts that somebody chose of an unknown number of predictions."""

    @property
    def measured(self) -> tuple[str, ...]:
        """The metrics that these predictions measure without bias, in the order of METRICS."""
        unavailable = () if self.stopping is None else self.stopping.not_available
        return tuple(name for name in self.tasks.metrics if name not in unavailable)

    @property
    def made(self) -> int:
        """Number of the requested predictions (or views) without those that the run's deadline left out."""
        return self.predictions - (0 if self.cut is None else sum(self.cut.of_tasks(self.outputs).values()))


def missing_warning(model: str, tasks: int, missing: Sequence[str]) -> str:
    """Say that a model has no prediction for some of so many tasks."""
    return f"{model}: of {tasks} tasks {format_ids(missing)} have no prediction and count as wrong"


def unreadable_warning(model: str, made: int, failures: Mapping[str, int]) -> str | None:
    """Say that not one answer of a model could be read as a grid; None if one could, or was not asked for.

    Args:
        made: predictions that were made.
        failures: by kind.
    """
    unread = {kind: count for kind, count in failures.items() if kind in ("unparsed", "bad_shape", "bad_value")}
    if not made or sum(unread.values()) < made:
        return None
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in unread.items() if count)
    return (
        f"{model}: none of its {made:,} answers could be read as a grid ({kinds}): are --prompt and "
        "--grid-encoder those that it was trained with?"
    )


def score_model(
    predictions: ModelPredictions,
    tasks: Sequence[Task],
    n: int,
    schedule: Schedule | None = None,
    *,
    is_cut: bool = False,
) -> ModelScores:
    """Score the predictions of one model.

    Args:
        n: requested predictions per test output.
        schedule: the rounds of a run with early stopping (see harness.scoring.early_stopped_scores).
        is_cut: whether the run ended by its deadline, so that missing predictions are no failures; they count as wrong.

    Raises:
        UnknownOutputError: the test output of a task is not known.
    """
    truths = true_outputs(tasks)
    scores = {
        task: [_score_output(output, truth, n, schedule) for output, truth in zip(outputs, truths[task], strict=True)]
        for task, outputs in predictions.outputs.items()
    }
    all_outputs = [output for outputs in predictions.outputs.values() for output in outputs]
    early = None if schedule is None else early_stopping_result(all_outputs, schedule)
    requested = n * len(all_outputs) - (0 if early is None else early.not_drawn)
    sampled = sum(output.count for output in all_outputs) + predictions.failures.get(NO_CANDIDATE, 0)
    cut = count_cut_predictions(predictions, n, schedule) if is_cut else None
    unsampled = requested - sampled if cut is None else 0
    failures = {**predictions.failures, "missing": predictions.failures.get("missing", 0) + unsampled}
    kinds = {kind: count for kind, count in sorted(failures.items()) if count}
    enumeration = enumeration_result(all_outputs)
    tasks_scores = average_outputs(scores)
    return ModelScores(predictions.model, tasks_scores, scores, kinds, requested, early, enumeration, cut=cut)


def _score_output(output: OutputPredictions, truth: Grid, n: int, schedule: Schedule | None) -> OutputScore:
    """Score one test output: the views of an enumeration or a pool, or the drawn predictions."""
    if isinstance(output, EnumeratedOutput | PooledOutput):
        return output.score(truth, n)
    return score_output(output, truth, n, schedule)


def true_outputs(tasks: Sequence[Task]) -> dict[str, list[Grid]]:
    """Return the correct test outputs of each task, by task id.

    Raises:
        UnknownOutputError: some are not known.
    """
    truths = {task.id: [pair.output for pair in task.test if pair.output is not None] for task in tasks}
    if unknown := [task.id for task in tasks if len(truths[task.id]) < len(task.test)]:
        raise UnknownOutputError(
            f"of {len(tasks)} tasks {format_ids(unknown)} have no output to score against; "
            "name a dataset with solutions"
        )
    return truths


def score_intervals(
    scored: Sequence[ModelScores], seed: int, confidence: float = CONFIDENCE, resamples: int = RESAMPLES
) -> list[dict[str, Interval]]:
    """Return each model's measured metrics with intervals.

    Models with the same number of tasks get the same bootstrap resamples, because these depend on the seed and the
    number of tasks only.
    """
    by_model: list[dict[str, Interval]] = []
    for scores in scored:
        rows = intervals(scores.tasks.values, scores.tasks.denominator, seed, confidence, resamples)
        by_metric = dict(zip(scores.tasks.metrics, rows, strict=True))
        by_model.append({name: by_metric[name] for name in scores.measured})
    return by_model


def make_results(
    scored: Sequence[ModelScores], n: int, seed: int, confidence: float = CONFIDENCE, resamples: int = RESAMPLES
) -> Results:
    """Return the content of results.json, without costs."""
    rows = score_intervals(scored, seed, confidence, resamples)
    models = {scores.model: _model_result(scores, row) for scores, row in zip(scored, rows, strict=True)}
    return Results(models=models, n=n, seed=seed, confidence=confidence, resamples=resamples)


def _model_result(scores: ModelScores, row: dict[str, Interval]) -> ModelResult:
    metrics = {
        name: Metric(
            value=interval.value,
            low=interval.low,
            high=interval.high,
            method=interval.method,
            per_output=scores.tasks.per_output[name],
            strict=scores.tasks.strict.get(name),
        )
        for name, interval in row.items()
    }
    return ModelResult(
        tasks=len(scores.outputs),
        outputs=sum(map(len, scores.outputs.values())),
        predictions=scores.predictions,
        failures=scores.failures,
        metrics=metrics,
        stopping=scores.stopping,
        enumeration=scores.enumeration,
        rule=scores.rule,
        members=scores.members,
        deadline=None if scores.cut is None else scores.cut.result(),
    )

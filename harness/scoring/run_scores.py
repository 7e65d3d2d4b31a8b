"""Scores of a run: the metrics of every model and task, their means with intervals, and results.json."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.core.errors import UnknownOutputError, format_ids
from harness.core.files import write_atomically
from harness.core.grid import Grid, Task
from harness.runs.folder import RunFolder
from harness.runs.prediction_reader import EnumeratedView, Prediction, read_predictions, read_views
from harness.runs.schema import Cost, EarlyStoppingResult, Manifest, Metric, ModelResult, Results
from harness.runs.view_schema import EnumerationResult
from harness.scoring.declared_tasks import declared_tasks
from harness.scoring.early_stopped_scores import early_stopping_result, score_output
from harness.scoring.enumerated_outputs import EnumeratedOutput, enumeration_result, group_views
from harness.scoring.prediction_groups import ModelPredictions, OutputPredictions, check_counts, group_predictions
from harness.stats.intervals import CONFIDENCE, RESAMPLES, Interval, intervals
from harness.voting.early_stopping import Schedule, run_schedule
from harness.voting.metrics import OutputScore, TaskScores, average_outputs

_NEVER_SENT = "too_long"


class CostMeter:
    """Counts requests, tokens and seconds by model while predictions are read."""

    def __init__(self) -> None:
        self._requests: dict[str, int] = {}
        self._tokens: dict[str, int] = {}
        self._seconds: dict[str, float] = {}

    def count(self, predictions: Iterable[Prediction]) -> Iterator[Prediction]:
        """Yield the predictions unchanged, and add up their costs."""
        for prediction in predictions:
            sent = prediction.outcome != _NEVER_SENT
            self._add(prediction.model, sent, prediction.n_tokens or 0, prediction.seconds)
            yield prediction

    def count_views(self, views: Iterable[EnumeratedView]) -> Iterator[EnumeratedView]:
        """Yield the views unchanged, and add up their costs: completions, generated tokens, and seconds."""
        for view in views:
            self._add(view.model, view.requests, view.n_tokens, view.seconds)
            yield view

    def costs(self) -> dict[str, Cost]:
        """Return the costs so far, by model."""
        return {
            model: Cost(requests=count, tokens=self._tokens[model], seconds=round(self._seconds[model], 3))
            for model, count in sorted(self._requests.items())
        }

    def _add(self, model: str, requests: int, tokens: int, seconds: float) -> None:
        self._requests[model] = self._requests.get(model, 0) + requests
        self._tokens[model] = self._tokens.get(model, 0) + tokens
        self._seconds[model] = self._seconds.get(model, 0.0) + seconds


@dataclass(frozen=True, slots=True)
class ModelScores:
    """The scores of one model on the declared tasks of a run."""

    model: str
    tasks: TaskScores
    outputs: dict[str, list[OutputScore]]
    """By task id: the score of each test output."""
    failures: dict[str, int]
    """Failures by kind; requested predictions that were never sampled are ``missing``."""
    predictions: int
    """Requested predictions: n per test output, minus the samples that early stopping skipped. Enumerated: views."""
    stopping: EarlyStoppingResult | None = None
    enumeration: EnumerationResult | None = None
    """None for drawn predictions."""
    temperature: float | None = None
    """At which the predictions were drawn; None if unknown, and for enumerated views."""

    @property
    def measured(self) -> tuple[str, ...]:
        """The metrics that these predictions measure without bias, in the order of METRICS."""
        unavailable = () if self.stopping is None else self.stopping.not_available
        return tuple(name for name in self.tasks.metrics if name not in unavailable)


def score_model(
    predictions: ModelPredictions, tasks: Sequence[Task], n: int, schedule: Schedule | None = None
) -> ModelScores:
    """Score the predictions of one model.

    Args:
        n: requested predictions per test output.
        schedule: the rounds of a run with early stopping (see harness.scoring.early_stopped_scores).

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
    sampled = sum(output.count for output in all_outputs)
    failures = {**predictions.failures, "missing": predictions.failures.get("missing", 0) + requested - sampled}
    kinds = {kind: count for kind, count in sorted(failures.items()) if count}
    enumeration = enumeration_result(all_outputs)
    return ModelScores(predictions.model, average_outputs(scores), scores, kinds, requested, early, enumeration)


def _score_output(output: OutputPredictions, truth: Grid, n: int, schedule: Schedule | None) -> OutputScore:
    """Score one test output: the enumerated views, or the drawn predictions."""
    return output.score(truth, n) if isinstance(output, EnumeratedOutput) else score_output(output, truth, n, schedule)


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


def score_run(run: Path, confidence: float = CONFIDENCE, resamples: int = RESAMPLES) -> Results:
    """Score a run folder and write its results.json; the run's seed seeds the intervals.

    Raises:
        DataError: a file of the run is missing or damaged, or the dataset is not the one that was sampled.
    """
    results = run_results(run, confidence, resamples)
    write_results(RunFolder(run), results)
    return results


def run_results(run: Path, confidence: float = CONFIDENCE, resamples: int = RESAMPLES) -> Results:
    """Return the results of a run folder without writing them.

    Raises:
        DataError: as ``score_run``.
    """
    folder = RunFolder(run)
    manifest = folder.manifest()
    meter = CostMeter()
    scored = score_run_models(folder, manifest, meter)
    results = make_results(scored, manifest.config.n, manifest.config.seed, confidence, resamples)
    return results.model_copy(update={"cost": meter.costs()})


def write_results(folder: RunFolder, results: Results) -> None:
    """Replace results.json atomically, without the comparison of selection rules that ``bench score`` may add."""
    plain = Results.model_validate(results.model_dump(include=set(Results.model_fields)))
    write_atomically(folder.results_path, plain.model_dump_json(indent=2).encode() + b"\n")


def score_run_models(
    folder: RunFolder, manifest: Manifest, meter: CostMeter | None = None, tasks: Sequence[Task] | None = None
) -> list[ModelScores]:
    """Score every model of a run, in the order of its manifest.

    Args:
        meter: counts the costs of the predictions.
        tasks: the declared tasks, if the caller has read them already.
    """
    tasks = declared_tasks(manifest) if tasks is None else tasks
    config, schedule = manifest.config, run_schedule(manifest.config)
    models = read_run_predictions(folder, manifest, tasks, meter)
    scored = [score_model(predictions, tasks, config.n, schedule) for predictions in models]
    temperature = config.temperature if config.search is None else None
    return [replace(scores, temperature=temperature) for scores in scored]


def read_run_predictions(
    folder: RunFolder, manifest: Manifest, tasks: Sequence[Task], meter: CostMeter | None = None
) -> list[ModelPredictions]:
    """Read the predictions, or the enumerated views, of every model of a run, grouped and checked against the run's n.

    Raises:
        DataError: a damaged line, or predictions that these tasks or n do not allow.
        RunError: there are no predictions, or they are not those that the finished run saved.
    """
    path, config = folder.predictions_path, manifest.config
    outputs = {task.id: len(task.test) for task in tasks}
    meter = CostMeter() if meter is None else meter
    models = [model.name for model in config.models]
    if config.search is None:
        per_view = config.samples_per_view if config.augment else config.n
        lines = meter.count(read_predictions(path))
        predictions = group_predictions(lines, outputs, models, str(path), samples_per_view=per_view)
    else:
        predictions = group_views(meter.count_views(read_views(path)), outputs, models, str(path))
    check_counts(predictions, config.n, str(path))
    folder.check_predictions(manifest)
    return predictions


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
    )

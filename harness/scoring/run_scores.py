"""From saved answers to scores: per model the metrics of every task, then means with intervals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.core.errors import UnknownOutputError, format_ids
from harness.core.files import write_atomically
from harness.core.grid import Grid, Task
from harness.runs.folder import RunFolder
from harness.runs.prediction_reader import Prediction, read_predictions
from harness.runs.schema import Cost, EarlyStoppingResult, Manifest, Metric, ModelResult, Results
from harness.scoring.declared_tasks import declared_tasks
from harness.scoring.early_stopped_scores import early_stopping_result, score_output
from harness.scoring.prediction_groups import ModelPredictions, check_counts, group_predictions
from harness.stats.intervals import CONFIDENCE, RESAMPLES, Interval, intervals
from harness.voting.early_stopping import Schedule, run_schedule
from harness.voting.metrics import METRICS, OutputScore, TaskScores, average

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


@dataclass(frozen=True, slots=True)
class ModelScores:
    """What one model scored on the declared tasks of a run."""

    model: str
    tasks: TaskScores
    outputs: dict[str, list[OutputScore]]
    """By task id, each test output's score."""
    failures: dict[str, int]
    """Failures by kind, those never drawn as ``missing``."""
    predictions: int
    """Predictions due: outputs x n, less those that stopping early spared."""
    stopping: EarlyStoppingResult | None = None

    @property
    def measured(self) -> tuple[str, ...]:
        """The metrics that these predictions tell, in the order of METRICS."""
        unknown = () if self.stopping is None else self.stopping.not_available
        return tuple(name for name in METRICS if name not in unknown)


def score_model(
    predictions: ModelPredictions, tasks: Sequence[Task], n: int, schedule: Schedule | None = None
) -> ModelScores:
    """Score what one model answered.

    Args:
        schedule: the rounds of a run that stopped early (harness.scoring.early_stopped_scores).

    Raises:
        UnknownOutputError: a task whose output is not known.
    """
    truths = true_outputs(tasks)
    outputs = {
        task: [score_output(output, truth, n, schedule) for output, truth in zip(own, truths[task], strict=True)]
        for task, own in predictions.outputs.items()
    }
    every = [output for own in predictions.outputs.values() for output in own]
    early = None if schedule is None else early_stopping_result(every, schedule)
    due = n * len(every) - (0 if early is None else early.not_drawn)
    given = sum(output.count for output in every)
    failures = {**predictions.failures, "missing": predictions.failures.get("missing", 0) + due - given}
    kinds = {kind: count for kind, count in sorted(failures.items()) if count}
    return ModelScores(predictions.model, average(outputs), outputs, kinds, due, early)


def true_outputs(tasks: Sequence[Task]) -> dict[str, list[Grid]]:
    """Return the exact outputs of each task, by its id.

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
    """For each model the interval of every measured metric; rows of one number of tasks share their resamples."""
    found: list[dict[str, Interval]] = []
    for scores in scored:
        rows = intervals(scores.tasks.values, scores.tasks.denominator, seed, confidence, resamples)
        named = dict(zip(METRICS, rows, strict=True))
        found.append({name: named[name] for name in scores.measured})
    return found


def score_run(run: Path, confidence: float = CONFIDENCE, resamples: int = RESAMPLES) -> Results:
    """Score a run folder and write its results.json; the seed of the run seeds the intervals.

    Raises:
        DataError: a file of the run is missing or broken, or the dataset is not the one that was sampled.
    """
    results = run_results(run, confidence, resamples)
    write_results(RunFolder(run), results)
    return results


def run_results(run: Path, confidence: float = CONFIDENCE, resamples: int = RESAMPLES) -> Results:
    """Return what ``score_run`` would write, and write nothing.

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
    """Replace results.json in one step; what only ``bench score`` adds (selection rules) is left out."""
    plain = Results.model_validate(results.model_dump(include=set(Results.model_fields)))
    write_atomically(folder.results_path, plain.model_dump_json(indent=2).encode() + b"\n")


def score_run_models(
    folder: RunFolder, manifest: Manifest, meter: CostMeter | None = None, tasks: Sequence[Task] | None = None
) -> list[ModelScores]:
    """Return the scores of every model of a run.

    Args:
        meter: counts what the predictions cost.
        tasks: the declared tasks, where they were read before.
    """
    tasks = declared_tasks(manifest) if tasks is None else tasks
    config = manifest.config
    return [
        score_model(own, tasks, config.n, run_schedule(config))
        for own in read_run_predictions(folder, manifest, tasks, meter)
    ]


def read_run_predictions(
    folder: RunFolder, manifest: Manifest, tasks: Sequence[Task], meter: CostMeter | None = None
) -> list[ModelPredictions]:
    """The answers of every model of a run, gathered by these tasks and held against the run's N.

    Raises:
        DataError: a broken line, or answers that these tasks and N do not allow.
        RunError: there are no predictions, or the run had saved others.
    """
    path, config = folder.predictions_path, manifest.config
    outputs = {task.id: len(task.test) for task in tasks}
    answers = read_predictions(path) if meter is None else meter.count(read_predictions(path))
    predictions = group_predictions(answers, outputs, [model.name for model in config.models], str(path))
    check_counts(predictions, config.n, str(path))
    folder.check_predictions(manifest)
    return predictions


def make_results(
    scored: Sequence[ModelScores], n: int, seed: int, confidence: float = CONFIDENCE, resamples: int = RESAMPLES
) -> Results:
    """The content of results.json."""
    rows = score_intervals(scored, seed, confidence, resamples)
    models = {scores.model: _model_result(scores, row) for scores, row in zip(scored, rows, strict=True)}
    return Results(models=models, n=n, seed=seed, confidence=confidence, resamples=resamples)


def _model_result(scores: ModelScores, row: dict[str, Interval]) -> ModelResult:
    metrics = {
        name: Metric(
            value=found.value,
            low=found.low,
            high=found.high,
            method=found.method,
            per_output=scores.tasks.per_output[name],
            strict=scores.tasks.strict.get(name),
        )
        for name, found in row.items()
    }
    return ModelResult(
        tasks=len(scores.outputs),
        outputs=sum(map(len, scores.outputs.values())),
        predictions=scores.predictions,
        failures=scores.failures,
        metrics=metrics,
        stopping=scores.stopping,
    )

"""From saved answers to scores: per model the metrics of every task, then means with intervals."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.answers import Answer, run_answers
from harness.datasets import iterate, open_dataset
from harness.errors import DataError
from harness.grid import Grid, Task
from harness.intervals import CONFIDENCE, RESAMPLES, Interval, intervals
from harness.metrics import METRICS, OutputScore, TaskScores, average, score_output
from harness.records import Manifest, Metric, ModelResult, Results
from harness.runs import RunFolder, write_atomically


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
    """Predictions due: outputs x n."""


def score_models(answers: Iterable[Answer], tasks: Sequence[Task], models: Sequence[str], n: int) -> list[ModelScores]:
    """Score every model on every declared task; what was never answered counts as missing.

    Memory grows with the number of predictions (a grid and a number each), not with their texts.

    Args:
        answers: in any order; those of other models are left out.
        tasks: the declared tasks, with outputs.
        models: which models to score, in order.
        n: predictions due for each test output.

    Raises:
        DataError: an answer to an unknown task or output, more answers than n, or a task whose output is not known.
    """
    shape = {task.id: len(task.test) for task in tasks}
    grids: dict[tuple[str, str, int], list[tuple[Grid | None, float | None]]] = defaultdict(list)
    failed: dict[str, Counter[str]] = {model: Counter() for model in models}
    for answer in answers:
        if answer.model not in failed:
            continue
        if answer.test_index >= shape.get(answer.task_id, 0):
            raise DataError(f"an answer to task {answer.task_id}, test {answer.test_index}, which the dataset lacks")
        grids[answer.model, answer.task_id, answer.test_index].append((answer.grid, answer.mean_logprob))
        if answer.grid is None:
            failed[answer.model][answer.outcome] += 1
    return [_score_model(model, tasks, grids, failed[model], n) for model in models]


def _score_model(
    model: str,
    tasks: Sequence[Task],
    grids: dict[tuple[str, str, int], list[tuple[Grid | None, float | None]]],
    failures: Counter[str],
    n: int,
) -> ModelScores:
    outputs: dict[str, list[OutputScore]] = {}
    for task in tasks:
        outputs[task.id] = []
        for index, pair in enumerate(task.test):
            if pair.output is None:
                raise DataError(f"task {task.id}, test {index}: no output to score against")
            given = grids.pop((model, task.id, index), [])
            if len(given) > n:
                raise DataError(f"{model}, task {task.id}, test {index}: {len(given)} answers where {n} were due")
            failures["missing"] += n - len(given)
            outputs[task.id].append(score_output([g for g, _ in given], pair.output, n, [p for _, p in given]))
    due = n * sum(len(task.test) for task in tasks)
    return ModelScores(model, average(outputs), outputs, {k: v for k, v in sorted(failures.items()) if v}, due)


def score_intervals(
    scored: Sequence[ModelScores], seed: int, confidence: float = CONFIDENCE, resamples: int = RESAMPLES
) -> list[dict[str, Interval]]:
    """For each model the interval of every metric; all rows of one number of tasks share their resamples."""
    found: list[dict[str, Interval]] = []
    for scores in scored:
        rows = intervals(scores.tasks.values, scores.tasks.denominator, seed, confidence, resamples)
        found.append(dict(zip(METRICS, rows, strict=True)))
    return found


def score_run(run: Path, confidence: float = CONFIDENCE, resamples: int = RESAMPLES) -> Results:
    """Score a run folder and write its results.json; the seed of the run seeds the intervals.

    Raises:
        DataError: a file of the run is missing or broken, or the dataset is not the one that was sampled.
    """
    folder = RunFolder(run)
    manifest = folder.manifest()
    scored = score_saved(folder, manifest)
    results = make_results(scored, manifest.config.n, manifest.config.seed, confidence, resamples)
    write_atomically(folder.results_path, results.model_dump_json(indent=2).encode() + b"\n")
    return results


def score_saved(folder: RunFolder, manifest: Manifest) -> list[ModelScores]:
    """The scores of every model of a run, from its predictions and its declared tasks."""
    config = manifest.config
    models = [model.name for model in config.models]
    return score_models(run_answers(folder.predictions_path), declared_tasks(manifest), models, config.n)


def declared_tasks(manifest: Manifest) -> list[Task]:
    """The tasks that a run declared, from its dataset.

    Raises:
        DataError: the dataset is not the one that was sampled.
    """
    config = manifest.config
    dataset = open_dataset(config.dataset)
    if dataset.digest() != config.dataset_digest:
        raise DataError(
            f"dataset {config.dataset} has digest {dataset.digest()}, but the run sampled {config.dataset_digest}: "
            "its content changed since; score against the original"
        )
    wanted = set(config.task_ids)
    return [task for task in iterate(dataset) if task.id in wanted]


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
    )

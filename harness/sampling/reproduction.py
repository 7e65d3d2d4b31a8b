"""Reproduce a run from its manifest, and compare the two."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.client.retry import RetryPolicy
from harness.core.errors import RunError
from harness.runs.folder import RunFolder
from harness.runs.prediction_reader import Prediction, read_predictions
from harness.runs.prediction_schema import PredictionKey
from harness.runs.schema import Results
from harness.sampling.options import RunOptions
from harness.sampling.progress_display import Display
from harness.sampling.session import SessionSummary, sample_run
from harness.scoring.run_scores import run_results, score_run

_SHOWN = 5


@dataclass(frozen=True)
class ReproductionResult:
    """How the predictions and results of two runs with one configuration compare."""

    predictions: int
    """Predictions of the original."""
    same: int
    """Those with equal outcome and grid in both runs."""
    same_results: bool
    """Whether all metrics and failure counts are equal."""
    first: tuple[PredictionKey, ...]
    """Keys of the first five predictions that differ, in the original's order."""


def reproduce_run(
    run: Path,
    out: Path,
    servers: tuple[str, ...] = (),
    api_key: str | None = None,
    resume: bool = False,
    policy: RetryPolicy | None = None,
    display: Display | None = None,
) -> tuple[SessionSummary, ReproductionResult | None]:
    """Sample a run again in another folder and compare it with the original.

    Args:
        run: the folder of the original, which must be finished.
        out: the folder of the new run.
        servers: addresses; empty for those of the original.
        resume: complete an earlier reproduction in ``out``.

    Returns:
        The session's summary and the comparison, which is None if the session ended before the run was complete.

    Raises:
        RunError: the run is not finished, or its dataset, a prompt or a model has changed.
    """
    manifest = RunFolder(run).manifest()
    config = manifest.config
    if manifest.finished is None:
        raise RunError(f"{run} is not finished, so that there is nothing to compare with; complete it with --resume")
    run_results(run)  # fails now rather than after sampling if the original cannot be scored
    options = RunOptions(
        servers=servers or tuple(manifest.servers),
        models=tuple(model.name for model in config.models),
        dataset=config.dataset,
        n=config.n,
        out=out,
        resume=resume,
        limit=len(config.task_ids),
        seed=config.seed,
        augment=config.augment,
        lenient=config.lenient,
        samples_per_view=config.samples_per_view,
        temperature=config.temperature,
        top_p=config.top_p,
        min_p=config.min_p,
        extra_body=config.extra_body,
        chat_template_kwargs=config.chat_template_kwargs,
        api_key=api_key,
        policy=policy or RetryPolicy(),
    )
    summary = sample_run(options, display, config)
    return summary, compare_runs(run, out) if summary.finished else None


def compare_runs(run: Path, other: Path) -> ReproductionResult:
    """Compare two runs prediction by prediction, and their results.

    ``other`` is scored, which writes its results.json. The results of ``run`` are computed again, because its
    results.json may have been made with other options or be older than its predictions.
    """
    outcomes = {_key(prediction): hash((prediction.outcome, prediction.grid)) for prediction in _predictions(other)}
    total = same = 0
    differing: list[PredictionKey] = []
    for prediction in _predictions(run):
        total += 1
        if outcomes.get(_key(prediction)) == hash((prediction.outcome, prediction.grid)):
            same += 1
        elif len(differing) < _SHOWN:
            differing.append(_key(prediction))
    same_results = _without_cost(run_results(run)) == _without_cost(score_run(other))
    return ReproductionResult(total, same, same_results, tuple(differing))


def _predictions(run: Path) -> Iterator[Prediction]:
    return read_predictions(RunFolder(run).predictions_path)


def _key(prediction: Prediction) -> PredictionKey:
    return prediction.model, prediction.task_id, prediction.test_index, prediction.sample


def _without_cost(results: Results) -> Results:
    """Return the results without times, which depend on the machine."""
    return results.model_copy(update={"cost": None})

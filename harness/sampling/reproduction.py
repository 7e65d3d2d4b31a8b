"""A run made again from its manifest, and whether the same came out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.client.retry import RetryPolicy
from harness.core.errors import RunError
from harness.runs.folder import RunFolder
from harness.runs.prediction_log import Key
from harness.runs.prediction_reader import Prediction, read_predictions
from harness.runs.schema import Results
from harness.sampling.options import RunOptions
from harness.sampling.progress_display import Display
from harness.sampling.session import SessionSummary, sample_run
from harness.scoring.run_scores import run_results, score_run

_SHOWN = 5


@dataclass(frozen=True)
class ReproductionResult:
    """How two runs of one configuration compare."""

    predictions: int
    same: int
    """Predictions with equal outcome and grid."""
    same_results: bool
    """All metrics and failure counts are equal."""
    first: tuple[Key, ...]
    """The first few keys that differ, in the original's order."""


def reproduce(
    run: Path,
    out: Path,
    servers: tuple[str, ...] = (),
    api_key: str | None = None,
    resume: bool = False,
    policy: RetryPolicy | None = None,
    display: Display | None = None,
) -> tuple[SessionSummary, ReproductionResult | None]:
    """Make a run again in ``out``, on its own servers unless others are named, and compare.

    Returns:
        The session, and the agreement; None where the session ended before the run was complete.

    Raises:
        RunError: the run is not complete, or what it was made from is another by now.
    """
    manifest = RunFolder(run).manifest()
    config = manifest.config
    if manifest.finished is None:
        raise RunError(f"{run} is not finished, so that there is nothing to compare with; complete it with --resume")
    run_results(run)  # before anything is asked, as there would be nothing to compare with in the end
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
    """Prediction by prediction, and the results (``other`` is scored and its results.json written).

    The results of ``run`` are computed anew: its results.json may be of other resamples, or older than its predictions.
    """
    found = {_key(answer): hash((answer.outcome, answer.grid)) for answer in _answers(other)}
    total = same = 0
    first: list[Key] = []
    for answer in _answers(run):
        total += 1
        if found.get(_key(answer)) == hash((answer.outcome, answer.grid)):
            same += 1
        elif len(first) < _SHOWN:
            first.append(_key(answer))
    return ReproductionResult(total, same, _core(run_results(run)) == _core(score_run(other)), tuple(first))


def _answers(run: Path) -> Iterator[Prediction]:
    return read_predictions(RunFolder(run).predictions_path)


def _key(answer: Prediction) -> Key:
    return answer.model, answer.task_id, answer.test_index, answer.sample


def _core(results: Results) -> Results:
    """Results without what depends on the machine."""
    return results.model_copy(update={"cost": None})

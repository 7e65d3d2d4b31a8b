"""Reproduce a run from its manifest, and compare the two."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.client.pool.retry import RetryPolicy
from harness.core.errors import RunError
from harness.runs.folder import RunFolder
from harness.runs.logs.prediction_reader import read_predictions, read_views
from harness.runs.schemas.manifest_schema import Manifest, RunConfig
from harness.runs.schemas.prediction_schema import PredictionKey
from harness.runs.schemas.results_schema import Results
from harness.sampling.options.run_options import RunOptions
from harness.sampling.progress_display import Display
from harness.sampling.session import SessionSummary, sample_run
from harness.scoring.run_scores import run_results, score_run
from harness.voting.selection_rules import VOTE, get_rule

_SHOWN = 5
_VIEW_TOLERANCE = 1e-3
"""Difference of log-probabilities, and of metrics made of them, that rounding in another batch explains."""


@dataclass(frozen=True)
class ReproductionResult:
    """How the predictions and results of two runs with one configuration compare."""

    predictions: int
    """Predictions (with ``--search dfs``, views) of the original."""
    same: int
    """Those with equal outcome and grid in both runs; views with equal answers, as ``_Content`` says."""
    same_results: bool
    """Whether all metrics and failure counts are equal; those of views within 0.001."""
    first: tuple[PredictionKey, ...]
    """Keys of the first five that differ, in the original's order."""


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
    run_results(run, rule=_compared_rule(config))  # fails now, not after sampling, if it cannot be scored
    options = repeated_options(manifest, out, servers or tuple(manifest.servers), api_key, resume, policy)
    summary = sample_run(options, display, config)
    return summary, compare_runs(run, out) if summary.finished else None


def repeated_options(
    manifest: Manifest,
    out: Path,
    servers: tuple[str, ...],
    api_key: str | None = None,
    resume: bool = False,
    policy: RetryPolicy | None = None,
) -> RunOptions:
    """Return the options with which a run is sampled again in another folder."""
    config = manifest.config
    return RunOptions(
        servers=servers,
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
        until_resolved=None if config.sequential is None else config.sequential.metric,
        smaller_than=_points(config),
        search=None if config.search is None else "dfs",
        min_prob=None if config.search is None else config.search.min_prob,
        max_answers=None if config.search is None else config.search.max_answers,
        keep_greedy=config.search is not None and bool(config.search.keep_greedy),
        temperature=config.temperature,
        top_p=config.top_p,
        min_p=config.min_p,
        extra_body=config.extra_body,
        chat_template_kwargs=config.chat_template_kwargs,
        api_key=api_key,
        policy=policy or RetryPolicy(),
    )


def compare_runs(run: Path, other: Path) -> ReproductionResult:
    """Compare two runs prediction by prediction, or view by view, and their results.

    ``other`` is scored, which writes its results.json. The results of ``run`` are computed again, because its
    results.json may have been made with other options or be older than its predictions. Where the headline rule needs
    rescores, both are scored by the vote and no results.json is written: rescoring is not reproduced.
    """
    contents = dict(_contents(other))
    total = same = 0
    differing: list[PredictionKey] = []
    for key, content in _contents(run):
        total += 1
        if key in contents and contents[key].agrees(content):
            same += 1
        elif len(differing) < _SHOWN:
            differing.append(key)
    config = RunFolder(run).manifest().config
    tolerance = 0.0 if config.search is None else _VIEW_TOLERANCE
    rule = _compared_rule(config)
    repeated = score_run(other) if rule is None else run_results(other, rule=rule)
    results = (_without_cost(run_results(run, rule=rule)), _without_cost(repeated))
    return ReproductionResult(total, same, _is_close(*results, tolerance), tuple(differing))


def _points(config: RunConfig) -> float | None:
    """Return the bound of ``--smaller-than`` in points; None if there is none."""
    design = config.sequential
    return None if design is None or design.smaller_than is None else round(100 * design.smaller_than, 9)


def _compared_rule(config: RunConfig) -> str | None:
    """Return the rule by which reproductions are scored: None for the run's own, the vote if that needs rescores."""
    return VOTE if config.rule is not None and get_rule(config.rule).needs_rescores else None


@dataclass(frozen=True, slots=True)
class _Content:
    """What is compared of a prediction or view: hashes of outcomes and grids.

    Answers whose probability is within rounding of ``--min-prob`` may be there or not.
    """

    required: tuple[int, ...]
    optional: tuple[int, ...] = ()

    def agrees(self, other: _Content) -> bool:
        """Return whether each has what the other requires."""
        mine, others = Counter(self.required), Counter(other.required)
        return mine - others <= Counter(other.optional) and others - mine <= Counter(self.optional)


def _contents(run: Path) -> Iterator[tuple[PredictionKey, _Content]]:
    """Yield the key and the content of every prediction or view of a run."""
    folder = RunFolder(run)
    search = folder.manifest().config.search
    if search is None:
        for prediction in read_predictions(folder.predictions_path):
            key = prediction.model, prediction.task_id, prediction.test_index, prediction.sample
            yield key, _Content((hash((prediction.outcome, prediction.grid)),))
        return
    threshold = math.log(search.min_prob)
    for view in read_views(folder.predictions_path):
        clear: list[int] = [hash((view.outcome, None))]
        close: list[int] = []
        for answer in view.answers:
            is_close = answer.sum_logprob is not None and answer.sum_logprob - threshold < _VIEW_TOLERANCE
            (close if is_close else clear).append(hash((answer.outcome, answer.grid)))
        yield (view.model, view.task_id, view.test_index, view.sample), _Content(tuple(clear), tuple(close))


def _is_close(one: object, other: object, tolerance: float) -> bool:
    """Return whether two results are equal, numbers within a tolerance."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_is_close(one[key], other[key], tolerance) for key in one)
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= tolerance
    return one == other


def _without_cost(results: Results) -> dict[str, object]:
    """Return the results without times, which depend on the machine."""
    return results.model_dump(exclude={"cost", "test_time_training"})

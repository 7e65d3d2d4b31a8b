"""Which metrics of two models may be compared, where one run drew answers and another enumerated or submitted them."""

from __future__ import annotations

from collections.abc import Sequence

from harness.scoring.model_scores import ModelScores
from harness.stats.bootstrap import Floats
from harness.voting.metrics import METRICS

MIXED_METRICS = ("greedy", "pass_n", "vote_1", "vote_2")
"""The metrics in which enumerated views (``--search dfs``) compare with drawn predictions."""
SUBMITTED_METRIC = "vote_2"
"""The metric in which submitted attempts compare with predictions that are voted on."""


def comparable_values(metric: str, model: ModelScores, baseline: ModelScores) -> tuple[Floats, Floats] | None:
    """Return the values of a metric for both models, by task; None if it may not be compared.

    Two models of one kind compare in what both measure. An enumerated and a drawn one compare in ``MIXED_METRICS``:
    the share of exact draws at temperature 0 is what ``greedy`` is of enumerated views. A submission's attempts were
    chosen before: with predictions that are voted on they compare in ``vote_2`` alone.
    """
    if model.is_submission != baseline.is_submission and metric != SUBMITTED_METRIC:
        return None
    if (model.enumeration is None) == (baseline.enumeration is None):
        if metric not in model.measured or metric not in baseline.measured:
            return None
        return model.tasks.values_of(metric), baseline.tasks.values_of(metric)
    ours, theirs = _mixed_values(metric, model), _mixed_values(metric, baseline)
    return None if ours is None or theirs is None else (ours, theirs)


def _mixed_values(metric: str, scores: ModelScores) -> Floats | None:
    """Return the values of a metric for a comparison with a model of the other kind; None if it may not be compared."""
    if metric not in MIXED_METRICS:
        return None
    if metric == "greedy" and scores.enumeration is None:
        metric = "accuracy" if scores.temperature == 0 else metric
    return scores.tasks.values_of(metric) if metric in scores.measured else None


def attempts_note(scored: Sequence[ModelScores]) -> str | None:
    """Say what is comparable between submissions and predictions; None if all are of one kind."""
    submitted = [scores for scores in scored if scores.is_submission]
    if len(submitted) in (0, len(scored)):
        return None
    has, it_is = ("has", "it is") if len(submitted) == 1 else ("have", "they are")
    return (
        f"{_names(submitted)} {has} the attempts that were submitted, chosen of an unknown number of predictions: with "
        f"other models {it_is} compared by {SUBMITTED_METRIC} only, where two attempts count for each side"
    )


def compared_metrics(scored: Sequence[ModelScores], metrics: Sequence[str]) -> list[str]:
    """Return the metrics to compare by default: these, and ``greedy`` after the first if views were enumerated."""
    if all(scores.enumeration is None for scores in scored):
        return list(metrics)
    return [metrics[0], "greedy", *metrics[1:]]


def incomparable_reason(metric: str, model: ModelScores, baseline: ModelScores) -> str:
    """Return why two models are not compared in a metric."""
    if model.is_submission != baseline.is_submission and metric != SUBMITTED_METRIC:
        return f"{metric} is not compared: {attempts_note([model, baseline])}"
    if (model.enumeration is None) == (baseline.enumeration is None):
        return f"{metric} is not measured for both {model.model} and {baseline.model}"
    return f"{metric} is not compared: {mixed_note([model, baseline])}"


def mixed_note(scored: Sequence[ModelScores]) -> str | None:
    """Say what is comparable between models with enumerated views and with drawn predictions; None if all are alike."""
    drawn = [scores for scores in scored if scores.enumeration is None and not scores.is_submission]
    views = [scores for scores in scored if scores.enumeration is not None]
    if not drawn or not views:
        return None
    others = [name for name in METRICS if name not in MIXED_METRICS]
    sampled = [scores.model for scores in drawn if scores.temperature != 0]
    greedy = "greedy is compared with accuracy at temperature 0"
    greedy += f" (not for {', '.join(sampled)}, drawn otherwise)" if sampled else ""
    return (
        f"the answers of {_names(views)} are enumerated, those of {_names(drawn)} drawn: {greedy}; a vote is one for "
        f"each view and grid against one for each draw; pass_n is of {_counts(views)} views against {_counts(drawn)} "
        f"draws; {', '.join(others)} mean probabilities against shares of draws, and are not compared"
    )


def enumerated_note(scored: Sequence[ModelScores]) -> str | None:
    """Say how far the accuracy of enumerated views may be off, if several models have them; None else."""
    views = [scores for scores in scored if scores.enumeration is not None]
    if len(views) < 2:
        return None
    masses = ", ".join(f"{100 * s.tasks.values_of('unexplored').mean():.1f} for {s.model}" for s in views)
    return (
        "the accuracy of enumerated views is the probability that was enumerated: the expected accuracy of draws at "
        f"temperature 1 may lie above it by up to the unexplored mass in points ({masses})"
    )


def unequal_counts_note(scored: Sequence[ModelScores]) -> str | None:
    """Say that deadlines left models with unequal numbers of predictions for a task; None if no task differs so."""
    missing = [{} if scores.cut is None else scores.cut.of_tasks(scores.outputs) for scores in scored]
    if all(counts == missing[0] for counts in missing):
        return None
    lacks = [
        f"{scores.model} lacks {sum(counts.values()):,} of {scores.predictions:,}"
        for scores, counts in zip(scored, missing, strict=True)
    ]
    return (
        f"missing by the deadline: the models have unequal numbers of predictions for a task ({', '.join(lacks)}); "
        "what is missing counts as wrong"
    )


def _names(scored: Sequence[ModelScores]) -> str:
    return ", ".join(scores.model for scores in scored)


def _counts(scored: Sequence[ModelScores]) -> str:
    """Return the numbers of predictions or views per test output."""
    counts = {score.n for scores in scored for outputs in scores.outputs.values() for score in outputs}
    return " or ".join(map(str, sorted(counts)))

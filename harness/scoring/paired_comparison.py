"""Paired comparisons between models on the same tasks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.core.errors import RunError
from harness.scoring.comparable_metrics import comparable_values, compared_metrics
from harness.scoring.model_scores import ModelScores
from harness.stats.bootstrap import Floats
from harness.stats.paired_test import Comparison, apply_holm, compare
from harness.voting.metrics import LOWER_IS_BETTER

HEADLINE = ("accuracy", "pass_n", "vote_2", "vote_1")
"""The metrics of every table, in order."""


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """One metric of ``model`` compared with ``baseline``."""

    metric: str
    model: str
    baseline: str
    comparison: Comparison
    won: tuple[str, ...]
    """Ids of the tasks on which the model scores better."""
    lost: tuple[str, ...]
    """Ids of the tasks on which the model scores worse."""


def all_pairs(scored: Sequence[ModelScores]) -> list[tuple[ModelScores, ModelScores]]:
    """Return every pair as (model, baseline); the baseline is the earlier one."""
    return [(model, baseline) for baseline, model in itertools.combinations(scored, 2)]


def pairs_with_first(scored: Sequence[ModelScores]) -> list[tuple[ModelScores, ModelScores]]:
    """Return each model but the first as (model, baseline); the first is the baseline."""
    return [(model, scored[0]) for model in scored[1:]]


def compare_pairs(
    pairs: Sequence[tuple[ModelScores, ModelScores]],
    seed: int,
    metrics: Sequence[str] | None = None,
    confidence: float = 0.95,
    resamples: int = 9_999,
) -> list[PairedComparison]:
    """Compare pairs of models in each metric, paired by task.

    A metric in which a pair is not comparable (harness.scoring.comparable_metrics) is skipped. Holm's correction is
    over everything that is returned.

    Args:
        pairs: (model, baseline).
        metrics: None takes HEADLINE, with ``greedy`` if some views were enumerated.
        seed: of sign flips and bootstrap resamples.

    Raises:
        RunError: the two models of a pair were scored on different tasks.
    """
    if metrics is None:
        metrics = compared_metrics([scores for pair in pairs for scores in pair], HEADLINE)
    if not (cells := _comparable_cells(pairs, metrics)):
        return []
    comparisons = compare(
        np.stack([ours for *_, (ours, _) in cells]),
        np.stack([theirs for *_, (_, theirs) in cells]),
        [math.lcm(model.tasks.denominator, baseline.tasks.denominator) for _, model, baseline, _ in cells],
        seed,
        confidence,
        resamples,
        [metric in LOWER_IS_BETTER for metric, *_ in cells],
    )
    return [_paired(*cell, comparison) for cell, comparison in zip(cells, comparisons, strict=True)]


def _comparable_cells(
    pairs: Sequence[tuple[ModelScores, ModelScores]], metrics: Sequence[str]
) -> list[tuple[str, ModelScores, ModelScores, tuple[Floats, Floats]]]:
    """Return (metric, model, baseline, values of both by task) wherever the two are comparable.

    Raises:
        RunError: the two models of a pair were scored on different tasks.
    """
    cells = [
        (metric, model, baseline, values)
        for metric in metrics
        for model, baseline in pairs
        if (values := comparable_values(metric, model, baseline)) is not None
    ]
    for model, baseline in pairs if cells else ():
        if model.tasks.ids != baseline.tasks.ids:
            raise RunError(f"{model.model} and {baseline.model} were scored on different tasks, so that no task pairs")
    return cells


def correct_together(groups: Sequence[Sequence[PairedComparison]]) -> list[list[PairedComparison]]:
    """Return the same groups with Holm's correction over all of them, for groups that are read together."""
    rows = [row for group in groups for row in group]
    corrected = iter(apply_holm([row.comparison for row in rows], [row.metric in LOWER_IS_BETTER for row in rows]))
    return [[replace(row, comparison=next(corrected)) for row in group] for group in groups]


def _paired(
    metric: str, model: ModelScores, baseline: ModelScores, values: tuple[Floats, Floats], comparison: Comparison
) -> PairedComparison:
    # Rounded as in compare: sums in another order differ in the last bits, which is no difference.
    difference = np.round(values[0] - values[1], 12)
    gains = -difference if metric in LOWER_IS_BETTER else difference
    won = tuple(task for task, gain in zip(model.tasks.ids, gains, strict=True) if gain > 0)
    lost = tuple(task for task, gain in zip(model.tasks.ids, gains, strict=True) if gain < 0)
    return PairedComparison(metric, model.model, baseline.model, comparison, won, lost)

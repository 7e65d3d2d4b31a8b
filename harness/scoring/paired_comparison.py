"""Paired comparisons between the models of runs on the same tasks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.core.errors import RunError
from harness.scoring.run_scores import ModelScores
from harness.stats.paired_test import Comparison, apply_holm, compare
from harness.voting.metrics import LOWER_IS_BETTER

HEADLINE = ("accuracy", "pass_n", "vote_2", "vote_1")
"""The metrics of every table, in order."""


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """One metric of ``model`` against ``baseline``: what differs, and on which tasks."""

    metric: str
    model: str
    baseline: str
    comparison: Comparison
    won: tuple[str, ...]
    lost: tuple[str, ...]
    """Ids of the tasks on which the model scores higher or lower (the reverse where lower is better)."""


def all_pairs(scored: Sequence[ModelScores]) -> list[tuple[ModelScores, ModelScores]]:
    """Every pair as (model, baseline), a later model against each one before it."""
    return [(b, a) for a, b in itertools.combinations(scored, 2)]


def pairs_with_first(scored: Sequence[ModelScores]) -> list[tuple[ModelScores, ModelScores]]:
    """Each model as (model, baseline) with the first as the baseline."""
    return [(model, scored[0]) for model in scored[1:]]


def compare_pairs(
    pairs: Sequence[tuple[ModelScores, ModelScores]],
    seed: int,
    metrics: Sequence[str] = HEADLINE,
    confidence: float = 0.95,
    resamples: int = 9_999,
) -> list[PairedComparison]:
    """Compare pairs of models metric by metric, paired by task; Holm's correction is over all that is returned.

    A metric that one of a pair cannot tell (``ModelScores.measured``) is left out.

    Raises:
        RunError: the two of a pair were scored on different tasks.
    """
    cells = [
        (metric, model, baseline)
        for metric in metrics
        for model, baseline in pairs
        if metric in model.measured and metric in baseline.measured
    ]
    if not cells:
        return []
    for model, baseline in pairs:
        if model.tasks.ids != baseline.tasks.ids:
            raise RunError(f"{model.model} and {baseline.model} were scored on different tasks, so that no task pairs")
    found = compare(
        np.stack([model.tasks.of(metric) for metric, model, _ in cells]),
        np.stack([baseline.tasks.of(metric) for metric, _, baseline in cells]),
        [math.lcm(model.tasks.denominator, baseline.tasks.denominator) for _, model, baseline in cells],
        seed,
        confidence,
        resamples,
        [metric in LOWER_IS_BETTER for metric in (cell[0] for cell in cells)],
    )
    return [_paired(*cell, comparison) for cell, comparison in zip(cells, found, strict=True)]


def correct_together(groups: Sequence[Sequence[PairedComparison]]) -> list[list[PairedComparison]]:
    """Return groups of comparisons that are read together, with Holm's correction over all of them."""
    rows = [row for group in groups for row in group]
    found = iter(apply_holm([row.comparison for row in rows], [row.metric in LOWER_IS_BETTER for row in rows]))
    return [[replace(row, comparison=next(found)) for row in group] for group in groups]


def _paired(metric: str, model: ModelScores, baseline: ModelScores, comparison: Comparison) -> PairedComparison:
    # As the comparison counts them: what only the order of adding differs in is no difference.
    difference = np.round(model.tasks.of(metric) - baseline.tasks.of(metric), 12)
    sign = -1 if metric in LOWER_IS_BETTER else 1
    won = tuple(task for task, d in zip(model.tasks.ids, sign * difference, strict=True) if d > 0)
    lost = tuple(task for task, d in zip(model.tasks.ids, sign * difference, strict=True) if d < 0)
    return PairedComparison(metric, model.model, baseline.model, comparison, won, lost)

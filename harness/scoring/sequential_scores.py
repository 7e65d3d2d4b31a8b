"""Verdicts of runs with a sequential design (``--until-resolved``), and the tasks that such a run reached."""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from dataclasses import replace
from pathlib import Path

from harness.core.grid import Task
from harness.predictions.prediction_groups import ModelPredictions
from harness.runs.schemas.manifest_schema import RunConfig
from harness.runs.schemas.sequential_schema import SequentialComparison, SequentialDesign, SequentialResult
from harness.scoring.model_scores import ModelScores, score_model
from harness.stats.sequential import Schedule, SequentialVerdict, sequential_verdict
from harness.voting.metrics import LOWER_IS_BETTER


def reached_tasks(design: SequentialDesign, order: Sequence[str], predictions: Sequence[ModelPredictions]) -> int:
    """Return how many tasks a run reached: those up to the look before which its last predictions were sampled.

    Args:
        order: ids of the declared tasks in the order in which they are sampled.
    """
    sampled = {
        task for model in predictions for task, outputs in model.outputs.items() if any(o.count for o in outputs)
    }
    last = max((index for index, task in enumerate(order) if task in sampled), default=0)
    return next(tasks for tasks in design.looks if tasks > last)


def completed_tasks(order: Sequence[str], predictions: Sequence[ModelPredictions], n: int) -> int:
    """Return how many tasks, from the first one, have all n predictions of every model for every test output."""
    for index, task in enumerate(order):
        if any(output.count < n for model in predictions for output in model.outputs[task]):
            return index
    return len(order)


def restrict_predictions(predictions: Sequence[ModelPredictions], tasks: Set[str]) -> list[ModelPredictions]:
    """Return the predictions for some of the tasks. The failures are still those of all tasks."""
    return [
        replace(model, outputs={task: outputs for task, outputs in model.outputs.items() if task in tasks})
        for model in predictions
    ]


def verdicts_at_last_look(
    config: RunConfig, tasks: Sequence[Task], predictions: Sequence[ModelPredictions]
) -> dict[str, SequentialVerdict]:
    """Return the verdict on each model but the first, by model, at the latest look whose tasks are complete.

    Empty before the first look, for a run without a sequential design, and if ``tasks`` lacks some of the run's. The
    vote is the rule.

    Raises:
        UnknownOutputError: the test output of a task is not known.
    """
    if (design := config.sequential) is None or not set(config.task_ids) <= {task.id for task in tasks}:
        return {}
    completed = completed_tasks(config.task_ids, predictions, config.n)
    look = max((number for number in design.looks if number <= completed), default=0)
    if not look:
        return {}
    order = config.task_ids[:look]
    first, *others = [score_model(model, tasks, config.n) for model in restrict_predictions(predictions, set(order))]
    return {model.model: _verdict(design, model, first, order, config.seed) for model in others}


def _verdict(
    design: SequentialDesign, model: ModelScores, baseline: ModelScores, order: Sequence[str], seed: int
) -> SequentialVerdict:
    """Return the verdict on one model after the tasks of ``order``."""
    places = {task: index for index, task in enumerate(model.tasks.ids)}
    differences = model.tasks.values_of(design.metric) - baseline.tasks.values_of(design.metric)
    return sequential_verdict(
        differences[[places[task] for task in order]],
        Schedule(tuple(design.looks), design.alpha),
        math.lcm(model.tasks.denominator, baseline.tasks.denominator),
        design.smaller_than,
        design.metric in LOWER_IS_BETTER,
        seed,
    )


def sequential_result(
    config: RunConfig, tasks: Sequence[Task], predictions: Sequence[ModelPredictions]
) -> SequentialResult | None:
    """Return what the sequential design of a run found; None for a run without one.

    Raises:
        UnknownOutputError: as ``verdicts_at_last_look``.
    """
    if (design := config.sequential) is None:
        return None
    reached = reached_tasks(design, config.task_ids, predictions)
    return SequentialResult(
        metric=design.metric,
        baseline=config.models[0].name,
        declared=len(config.task_ids),
        reached=reached,
        smaller_than=design.smaller_than,
        not_reached=config.task_ids[reached:],
        comparisons={
            model: SequentialComparison(
                verdict=verdict.verdict,
                tasks=verdict.looks[-1].tasks,
                delta=verdict.looks[-1].delta,
                low=verdict.looks[-1].low,
                high=verdict.looks[-1].high,
            )
            for model, verdict in verdicts_at_last_look(config, tasks, predictions).items()
        },
    )


def sequential_note(path: Path, result: SequentialResult) -> str:
    """Return what readers of other figures of a run with a sequential design must know."""
    ended = f"{path}: --until-resolved {result.metric} sampled {result.reached} of {result.declared} tasks"
    outside = f"; the {len(result.not_reached)} others are in no figure" if result.not_reached else ""
    return (
        f"{ended}{outside}. When it ended depended on its scores: the verdict of --until-resolved allows for that, "
        "other intervals and p-values do not"
    )

"""The options ``--until-resolved`` and ``--smaller-than``: their checks, and the design that they give."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.core.errors import ConfigError
from harness.core.grid import Task
from harness.runs.schemas.sequential_schema import SequentialDesign
from harness.voting.selection_rules import VOTE, get_rule


def check_design(
    metric: str | None,
    smaller_than: float | None,
    models: Sequence[str],
    stop: str | None,
    search: str | None,
    rule: str | None,
) -> None:
    """Reject options that do not go with ``--until-resolved``.

    Raises:
        ConfigError: the message names the option and says what to do.
    """
    if metric is None:
        if smaller_than is not None:
            raise ConfigError("--smaller-than belongs to --until-resolved METRIC; add it, or leave --smaller-than out")
        return
    from harness.voting.metrics import METRICS

    if metric not in METRICS:
        raise ConfigError(f"--until-resolved {metric}: there is no such metric; choose one of {', '.join(METRICS)}")
    if smaller_than is not None and not (math.isfinite(smaller_than) and 0 < smaller_than < 100):
        raise ConfigError(f"--smaller-than must be above 0 and below 100 points, not {smaller_than:g}")
    if len(models) < 2:
        raise ConfigError("--until-resolved compares models; name a second --model")
    refused = (
        (stop is not None, "--stop", "a task counts when all of its predictions are there"),
        (search == "dfs", "--search dfs", "it is for drawn predictions"),
        (rule is not None and get_rule(rule).name != VOTE, "--rule", "the models are compared by the vote"),
    )
    for is_set, name, why in refused:
        if is_set:
            raise ConfigError(f"--until-resolved cannot have {name}: {why}")


def in_sampling_order(tasks: Sequence[Task], seed: int) -> list[Task]:
    """Return the tasks in the random order in which ``--until-resolved`` samples them.

    Raises:
        UnknownOutputError: the right test output of a task is not known, so that it cannot be compared.
    """
    from harness.scoring.model_scores import true_outputs
    from harness.stats.sequential import task_order

    true_outputs(tasks)
    by_id = {task.id: task for task in tasks}
    return [by_id[task] for task in task_order(list(by_id), seed)]


def sequential_design(
    metric: str | None, smaller_than: float | None, tasks: int, models: int, warnings: list[str]
) -> SequentialDesign | None:
    """Return the looks of a run with so many tasks and models; None without ``--until-resolved``.

    Args:
        smaller_than: in points.
        warnings: gets a line if the tasks are too few for ``smaller_than``.
    """
    if metric is None:
        return None
    from harness.stats.sequential import even_schedule, tasks_for_smaller

    schedule = even_schedule(tasks, pairs=models - 1)
    bound = None if smaller_than is None else smaller_than / 100
    if bound is not None and (least := tasks_for_smaller(bound, schedule.alpha)) > tasks:
        warnings.append(
            f"--smaller-than {smaller_than:g}: {tasks} tasks are too few to say so unless tasks are won and lost "
            f"entirely; {least} are the fewest"
        )
    return SequentialDesign(metric=metric, looks=list(schedule.looks), alpha=schedule.alpha, smaller_than=bound)

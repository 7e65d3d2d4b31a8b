"""Write made-up rescores.jsonl files for run folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from harness.candidates.rescore_log import RescoreLog
from harness.candidates.rescore_plan import RescorePlan
from harness.candidates.rescores import RescoreRecord
from harness.core.grid import Grid
from harness.core.random_stream import Stream
from harness.predictions.rescore_source import open_rescore_source

Value = Callable[[str, str, int, Grid, int], float | None]
"""Returns the log-probability for (scorer, task id, test index, grid, view); None for a candidate that is too long."""


def made_up_logprob(scorer: str, task_id: str, test_index: int, grid: Grid, view: int) -> float:
    """Return a log-probability that depends on everything that identifies the line."""
    return -10 * Stream("rescore", scorer, task_id, test_index, grid.to_rows(), view).uniform()


def write_rescores(
    run: Path,
    scorer: str | None = None,
    views: int = 3,
    top: int | None = None,
    value: Value = made_up_logprob,
    keep: Callable[[int], bool] = lambda number: True,
) -> Path:
    """Rescore a run with made-up log-probabilities; return the file.

    Args:
        scorer: who rescores; None for each model itself.
        keep: whether the line with a number is written.
    """
    source = open_rescore_source(run)
    plan = RescorePlan(source.candidates, {name: scorer or name for name in source.candidates}, views, top)
    log = RescoreLog(source.path, source.header(views), dict.fromkeys(plan.scorers, top))
    number = 0
    for item in plan.missing(log.rescores):
        for grid in item.grids:
            if keep(number):
                logprob = value(item.scorer, item.task_id, item.test_index, grid, item.view)
                log.append(rescore_record(item.scorer, item.task_id, item.test_index, grid, item.view, logprob))
            number += 1
    log.close()
    return source.path


def rescore_record(
    scorer: str, task_id: str, test_index: int, grid: Grid, view: int, logprob: float | None = -1.0
) -> RescoreRecord:
    """Return a line; without a log-probability it is of a candidate that was too long."""
    return RescoreRecord(
        scorer=scorer,
        scorer_hash=f"hash of {scorer}",
        task_id=task_id,
        test_index=test_index,
        grid=grid.to_rows(),
        view=view,
        logprob=logprob,
        n_tokens=5,
        failure="too_long" if logprob is None else None,
    )

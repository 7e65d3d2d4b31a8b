"""Figures about enumeration: what it proposes for its tokens beside drawn predictions, and how well its
probabilities are calibrated.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean

import numpy as np

from benchmarks.evidence.experiment import (
    DFS,
    DFS_DEEP,
    DFS_GREEDY,
    DRAWS,
    SAMPLED,
    SAMPLED_MORE,
    SEED,
    has_results,
    run_folder,
)
from harness.predictions.declared_tasks import declared_tasks
from harness.predictions.prediction_groups import group_predictions
from harness.results.table_format import difference_interval, markdown_table, p_value, points, with_interval
from harness.runs.folder import RunFolder
from harness.runs.logs.prediction_reader import read_predictions, read_views
from harness.scoring.model_scores import ModelScores, score_intervals, score_model, true_outputs
from harness.scoring.paired_comparison import PairedComparison, compare_pairs
from harness.scoring.prediction_loader import open_predictions
from harness.scoring.run_scores import score_by_vote

EDGES = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9, 0.97, 1.0)
"""Bins of an answer's probability."""
RESAMPLES = 4_999
GREEDY = "greedy"
"""The answers at temperature 0 of the views of the first enumeration."""


@dataclass(frozen=True)
class Row:
    """One adapter under one way to sample."""

    draw: str
    scores: ModelScores
    requests: float
    """For each test output, as the other two."""
    tokens: float
    draws: float


def rows_of(work: Path, data: str) -> dict[str, list[Row]]:
    """Return the rows of every adapter of a data set, those of enumeration last, by adapter."""
    rows: dict[str, list[Row]] = {}
    for draw in (draw for draw in DRAWS if has_results(work, data, draw)):
        saved = open_predictions(run_folder(work, data, draw))
        for scores in score_by_vote(saved):
            outputs = sum(map(len, scores.outputs.values()))
            cost = (saved.costs or {})[scores.model]
            row = Row(draw.name, scores, cost.requests / outputs, cost.tokens / outputs, draw.views)
            rows.setdefault(scores.model, []).append(row)
    greedy = _greedy_rows(work, data) if has_results(work, data, DFS) else {}
    return {
        model: [*many, *greedy.get(model, []), *_at_equal_tokens(work, data, model, many)]
        for model, many in rows.items()
    }


def _greedy_rows(work: Path, data: str) -> dict[str, list[Row]]:
    """Return a row for each adapter of the answers that temperature 0 gives for the enumerated views.

    A view's first request gives that answer, also where it is less likely than the threshold.
    """
    folder = RunFolder(run_folder(work, data, DFS))
    manifest = folder.manifest()
    tasks = declared_tasks(manifest)
    outputs = {task.id: len(task.test) for task in tasks}
    answers = [view.greedy for view in read_views(folder.predictions_path) if view.greedy is not None]
    models = [model.name for model in manifest.config.models]
    rows = {}
    for predictions in group_predictions(answers, outputs, models, str(folder.path)):
        scores = replace(score_model(predictions, tasks, DFS.views), temperature=0.0)
        tokens = sum(answer.n_tokens or 0 for answer in answers if answer.model == predictions.model)
        row = Row(GREEDY, scores, DFS.views, tokens / sum(outputs.values()), DFS.views)
        rows[predictions.model] = [row]
    return rows


def _at_equal_tokens(work: Path, data: str, model: str, rows: Sequence[Row]) -> list[Row]:
    """Return rows of the first samples of the longest run at temperature 1, as many as cost what enumeration did."""
    by_draw = {row.draw: row for row in rows}
    if SAMPLED_MORE.name not in by_draw:
        return []
    all_drawn = by_draw[SAMPLED_MORE.name]
    folder = RunFolder(run_folder(work, data, SAMPLED_MORE))
    manifest = folder.manifest()
    tasks = declared_tasks(manifest)
    outputs = {task.id: len(task.test) for task in tasks}
    results = []
    for draw in (draw for draw in (DFS, DFS_DEEP) if draw.name in by_draw):
        each = all_drawn.tokens / SAMPLED_MORE.views
        count = min(SAMPLED_MORE.views, max(1, round(by_draw[draw.name].tokens / each)))
        lines = (p for p in read_predictions(folder.predictions_path) if p.model == model and p.sample < count)
        (predictions,) = group_predictions(lines, outputs, [model], str(folder.path))
        scores = replace(score_model(predictions, tasks, count), temperature=1.0)
        results.append(Row(f"sample, tokens of {draw.name}", scores, count, count * each, count))
    return results


def cost_table(work: Path, data: str) -> str:
    """Return a table of what each way to sample reaches, with its cost."""
    header = ("adapter", "run", "draws or views", "requests", "tokens", "pass_n", "vote_2", "vote_1")
    body = []
    for model, rows in rows_of(work, data).items():
        for row in rows:
            (by_metric,) = score_intervals([row.scores], SEED)
            cells = (with_interval(by_metric[name]) for name in ("pass_n", "vote_2", "vote_1"))
            body.append([model, row.draw, f"{row.draws:.0f}", f"{row.requests:.1f}", f"{row.tokens:,.0f}", *cells])
    return markdown_table(header, body, left=2)


def gains(work: Path, data: str) -> list[PairedComparison]:
    """Compare enumeration with every drawn run of the same adapter in pass_n and vote_2, corrected together."""
    pairs = []
    for model, rows in rows_of(work, data).items():
        named = {row.draw: replace(row.scores, model=f"{model}: {row.draw}") for row in rows}
        for draw, cost in ((DFS, DFS), (DFS_GREEDY, DFS), (DFS_DEEP, DFS_DEEP)):
            others = (GREEDY, "sample", "sample-32", f"sample, tokens of {cost.name}")
            pairs += [(named[draw.name], named[other]) for other in others if draw.name in named and other in named]
    return compare_pairs(pairs, SEED, ("pass_n", "vote_2"))


def comparison_rows(comparisons: Iterable[PairedComparison]) -> list[list[str]]:
    """Return table cells: metric, model, baseline, difference, interval, won and lost, p (Holm), verdict."""
    return [
        [
            row.metric,
            row.model,
            row.baseline.removeprefix(row.model.split(":")[0] + ": "),
            points(row.comparison.delta),
            difference_interval(row.comparison),
            f"{row.comparison.won} / {row.comparison.lost}",
            p_value(row.comparison.p_holm),
            row.comparison.verdict,
        ]
        for row in comparisons
    ]


COMPARISON_HEADER = ("metric", "of", "against", "points", "interval", "won / lost", "p (Holm)", "verdict")


@dataclass(frozen=True)
class Answers:
    """Enumerated grids of one adapter: their probabilities, whether each is exact, and the index of each's task."""

    probabilities: np.ndarray[tuple[int], np.dtype[np.float64]]
    exact: np.ndarray[tuple[int], np.dtype[np.float64]]
    tasks: np.ndarray[tuple[int], np.dtype[np.int64]]


def answers_of(folder: RunFolder, models: Sequence[str]) -> Answers:
    """Return all grids that the views of these models propose."""
    tasks = declared_tasks(folder.manifest())
    truths = true_outputs(tasks)
    numbers = {task.id: number for number, task in enumerate(tasks)}
    values = []
    for view in read_views(folder.predictions_path):
        if view.model not in models:
            continue
        by_grid: dict[object, float] = {}
        for answer in view.answers:
            if answer.grid is not None and answer.sum_logprob is not None:
                by_grid[answer.grid] = by_grid.get(answer.grid, 0.0) + float(np.exp(answer.sum_logprob))
        truth = truths[view.task_id][view.test_index]
        values += [(p, float(grid == truth), numbers[view.task_id]) for grid, p in by_grid.items()]
    columns = np.array(values).reshape(-1, 3)
    return Answers(columns[:, 0], columns[:, 1], columns[:, 2].astype(np.int64))


def calibration_rows(answers: Answers) -> list[list[str]]:
    """Return a row for each bin: probability, answers, tasks, mean probability, and frequency exact with interval.

    The interval resamples tasks, because the views of a task are alike.
    """
    rows = []
    for low, high in pairwise(EDGES):
        last = high == EDGES[-1]
        chosen = (answers.probabilities >= low) & ((answers.probabilities < high) | last)
        if not chosen.any():
            continue
        exact, tasks = answers.exact[chosen], answers.tasks[chosen]
        low_end, high_end = _share_interval(exact, tasks)
        mean = fmean(answers.probabilities[chosen])
        rows.append(
            [
                f"{low:g}–{high:g}",
                f"{chosen.sum():,}",
                str(len(set(tasks))),
                f"{100 * min(mean, 1):.1f} %",
                f"{100 * exact.mean():.1f} % [{100 * low_end:.1f}, {100 * high_end:.1f}]",
                "yes" if low_end <= mean <= high_end else "too high" if mean > high_end else "too low",
            ]
        )
    return rows


CALIBRATION_HEADER = ("probability", "grids", "tasks", "predicted", "exact", "predicted within the interval")


def _share_interval(exact: np.ndarray, tasks: np.ndarray) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of a share of answers, resampling tasks."""
    ids, where = np.unique(tasks, return_inverse=True)
    hits, counts = np.bincount(where, exact), np.bincount(where)
    weights = np.random.default_rng(SEED).multinomial(len(ids), np.full(len(ids), 1 / len(ids)), RESAMPLES)
    low, high = np.quantile((weights @ hits) / (weights @ counts), (0.025, 0.975))
    return float(low), float(high)


def expectation_rows(work: Path, data: str) -> list[list[str]]:
    """Return for each adapter the probability of the exact grid that enumeration gives, beside drawn accuracy."""
    rows = []
    for model, many in rows_of(work, data).items():
        by_draw = {row.draw: row.scores.tasks for row in many}
        cells = []
        for draw in (DFS, DFS_DEEP):
            if (tasks := by_draw.get(draw.name)) is None:
                cells.append("–")
                continue
            accuracy, unexplored = (100 * tasks.values_of(name).mean() for name in ("accuracy", "unexplored"))
            cells.append(f"{accuracy:.1f} + at most {unexplored:.1f}")
        for draw in (SAMPLED, SAMPLED_MORE):
            if (tasks := by_draw.get(draw.name)) is None:
                cells.append("–")
                continue
            drawn = tasks.values_of("accuracy")
            cells.append(f"{100 * drawn.mean():.1f} ± {100 * drawn.std(ddof=1) / len(drawn) ** 0.5:.1f}")
        greedy = by_draw[DFS.name].values_of("greedy").mean()
        rows.append([model, *cells, f"{100 * greedy:.1f}"])
    return rows

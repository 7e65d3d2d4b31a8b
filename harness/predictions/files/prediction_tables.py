"""Predictions, enumerated views or the proposals of a pool from the rows of a table (``bench export``)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from harness.core.errors import DataError, GridError
from harness.core.grid import Grid, Task
from harness.predictions.enumerated_outputs import group_views
from harness.predictions.files.saved_grid import read_grid, within_limits
from harness.predictions.files.table_rows import Row, TableRows, grid_rows, require_columns
from harness.predictions.pooled_outputs import merged_predictions
from harness.predictions.prediction_groups import UNNAMED, ModelPredictions, group_predictions, raise_problems
from harness.runs.logs.field_checks import check_index, check_number, check_text
from harness.runs.logs.json_grid import read_json_grid
from harness.runs.logs.prediction_reader import EnumeratedView, Prediction, check_outcome, close_view, parse_answer
from harness.runs.schemas.prediction_schema import OutputKey
from harness.voting.ranking import Vote

Kind = Literal["drawn", "views", "pool"]

_ALWAYS = ("task_id", "test_index", "grid")
_NEEDED: dict[Kind, tuple[str, ...]] = {
    "drawn": _ALWAYS,
    "views": (
        "model", *_ALWAYS, "sample_index", "answer_index", "symmetry", "outcome", "cumulative_logprob", "n_tokens",
        "seconds", "answers", "unexplored", "truncated", "dropped", "requests", "greedy_outcome",
    ),
    "pool": (*_ALWAYS, "member", "view_space", "view", "sample_index", "cumulative_logprob", "mean_logprob"),
}  # fmt: skip
"""The columns that each kind of table must have."""


@dataclass(frozen=True, slots=True)
class PooledVote:
    """A row of a pool's table: a prediction of a candidate by one member."""

    member: str
    view_space: str
    key: OutputKey
    vote: Vote
    names_view: bool
    """Whether the row names the symmetry of the view."""


def table_kind(table: TableRows) -> Kind:
    """Return what the rows of a table are: drawn predictions, answers and views of an enumeration, or a pool's.

    Raises:
        DataError: a column is missing.
    """
    kind: Kind = "drawn"
    if "view_space" in table.columns:
        kind = "pool"
    elif {"answer_index", "unexplored"} & set(table.columns):
        kind = "views"
    require_columns(table, _NEEDED[kind])
    return kind


def group_table(table: TableRows, tasks: Sequence[Task], n: int | None) -> tuple[list[ModelPredictions], int]:
    """Group the rows of a table by model, task and test output; see ``group_predictions``.

    Args:
        tasks: the declared tasks.
        n: requested views per test output, for a pool.

    Returns:
        The predictions, and the number of members of a pool, which is 0 for other tables.

    Raises:
        DataError: a column is missing, a value is damaged, or rows do not fit the tasks.
    """
    kind, outputs = table_kind(table), {task.id: len(task.test) for task in tasks}
    if kind == "drawn":
        return group_predictions(within_limits(table_predictions(table), tasks), outputs, None, table.name), 0
    if kind == "views":
        return group_views(table_views(table), outputs, None, table.name), 0
    by_space: dict[str, dict[OutputKey, list[Vote]]] = {}
    members: set[str] = set()
    undeclared: dict[str, None] = {}
    has_views = True
    for row in table_votes(table):
        if row.key[1] >= outputs.get(row.key[0], 0):
            undeclared[f"answers to task {row.key[0]}, test {row.key[1]}, which the dataset lacks"] = None
        by_space.setdefault(row.view_space, {}).setdefault(row.key, []).append(row.vote)
        members.add(row.member)
        has_views &= row.names_view
    raise_problems(list(undeclared), table.name, "mend it, or name the dataset that it answers")
    return [merged_predictions(list(by_space.items()), outputs, n, has_views)], len(members)


def table_predictions(table: TableRows) -> Iterator[Prediction]:
    """Yield the rows of a table as drawn predictions.

    Without ``outcome``, a value that is no grid is a failed prediction. Without ``sample_index``, the predictions of a
    test output are numbered in their order.

    Raises:
        DataError: a value is damaged; the message names row and column.
    """
    counts: Counter[tuple[str, str, int]] = Counter()
    numbered = "sample_index" in table.columns
    for where, row in table.rows:
        model = check_text(row.get("model", UNNAMED), where, "model")
        task, index = _output(row, where)
        sample = check_index(row["sample_index"], where, "sample_index") if numbered else counts[model, task, index]
        counts[model, task, index] += 1
        tokens, symmetry = row.get("n_tokens"), row.get("symmetry")
        outcome, grid = _outcome(row, where)
        yield Prediction(
            model=model,
            task_id=task,
            test_index=index,
            outcome=outcome,
            grid=grid,
            sum_logprob=_number(row, "cumulative_logprob", where),
            n_tokens=None if tokens is None else check_index(tokens, where, "n_tokens"),
            view=None if symmetry is None else check_text(symmetry, where, "symmetry"),
            sample=sample,
            seconds=_number(row, "seconds", where) or 0.0,
        )


def table_views(table: TableRows) -> Iterator[EnumeratedView]:
    """Yield the enumerated views of a table: the answers of a view stand before its own row, without answer_index.

    Raises:
        DataError: a value is damaged, or a view and its answers contradict each other; the message names the row.
    """
    answers: list[Prediction] = []
    where = table.name
    for where, row in table.rows:
        view = {"symmetry": row["symmetry"], "colours": [], "order": []}
        if row["answer_index"] is None:
            yield close_view(_closing_record(row, view, where), answers, where)
            answers = []
        else:
            line = {**row, "grid": grid_rows(row["grid"], where), "augmentation": view}
            answers.append(parse_answer(line, len(answers), where))
    if answers:
        raise DataError(f"{where}: the row of its view is missing: a row without answer_index after the answers")


def table_votes(table: TableRows) -> Iterator[PooledVote]:
    """Yield the rows of a pool's table.

    Raises:
        DataError: a value is damaged; the message names row and column.
    """
    for where, row in table.rows:
        symmetry = row.get("symmetry")
        try:
            grid = read_json_grid(grid_rows(row["grid"], where), f"{where}, grid")
        except GridError as error:
            raise DataError(str(error)) from None
        vote = Vote(
            grid,
            _number(row, "mean_logprob", where),
            _number(row, "cumulative_logprob", where),
            "identity" if symmetry is None else check_text(symmetry, where, "symmetry"),
            check_index(row["sample_index"], where, "sample_index"),
            check_index(row["view"], where, "view"),
        )
        member, space = (check_text(row[name], where, name) for name in ("member", "view_space"))
        yield PooledVote(member, space, _output(row, where), vote, symmetry is not None)


def _output(row: Row, where: str) -> OutputKey:
    return check_text(row["task_id"], where, "task_id"), check_index(row["test_index"], where, "test_index")


def _outcome(row: Row, where: str) -> tuple[str, Grid | None]:
    """Return outcome and grid of a drawn prediction."""
    rows = grid_rows(row["grid"], where)
    if "outcome" not in row:
        return read_grid(rows, f"{where}, grid")
    try:
        grid = None if rows is None else read_json_grid(rows, f"{where}, grid")
    except GridError as error:
        raise DataError(str(error)) from None
    return check_outcome(row["outcome"], grid, where), grid


def _number(row: Row, column: str, where: str) -> float | None:
    """Return a number of a row; None if it is missing or not a number (nan)."""
    value = check_number(row.get(column), where, column)
    return None if value is None or value != value else value


def _closing_record(row: Row, view: Mapping[str, object], where: str) -> dict[str, object]:
    """Return the row of a view as the closing record of a view in predictions.jsonl."""
    greedy = None
    if row["greedy_outcome"] is not None:
        grid = grid_rows(row["grid"], where)
        greedy = {"outcome": row["greedy_outcome"], "grid": grid, "text": "", "cumulative_logprob": 0.0, "n_tokens": 0}
    counts = ("outcome", "answers", "unexplored", "truncated", "dropped", "requests", "n_tokens", "seconds")
    identity = ("model", "task_id", "test_index", "sample_index")
    return {
        **{name: row[name] for name in identity},
        "augmentation": view,
        "seed": 0,
        "view": {**{name: row[name] for name in counts}, "greedy": greedy},
    }

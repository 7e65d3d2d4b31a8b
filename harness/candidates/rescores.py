"""rescores.jsonl: the log-probability of every candidate under the same fixed views, written by ``bench rescore``.

The first line is the header; each further line is one candidate under one view by one scorer. Every line ends with the
CRC-32 of its other fields. Lines are appended in any order; a key never occurs twice.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SkipValidation, model_validator

from harness.core.errors import DataError, GridError
from harness.core.files import complete_lines
from harness.core.grid import Grid
from harness.runs.logs.checked_lines import decode_line
from harness.runs.schemas.deadline_record import RescoreDeadline
from harness.runs.schemas.prediction_schema import OutputKey, Record, omitted_if_none

RESCORES_FILE = "rescores.jsonl"
RescoreFailure = Literal["too_long", "unwritable"]
"""Why a candidate has no log-probability under a view.

``too_long``: prompt and answer do not fit into the context. ``unwritable``: the tokens of the answer decode to another
grid, so that their probability would not be that of the candidate.
"""
RescoreKey = tuple[str, str, int, Grid, int]
"""(scorer, task id, test index, grid, view), which identifies a line."""
_REMEDY = "restore the file, or move it away and run bench rescore again"


class RescoreHeader(Record):
    """The first line of rescores.jsonl: what was rescored, and under how many views."""

    format: Literal[1] = 1
    kind: Literal["rescores"] = "rescores"
    run: str
    """The digest of the dataset."""
    seed: int
    """The run's seed, from which the views are drawn."""
    views: Annotated[int, Field(gt=0)]
    predictions_sha256: str
    """SHA-256 of the predictions (of a pool, of its candidates) when the file was begun."""
    top: dict[str, Annotated[int, Field(gt=0)]] | None = omitted_if_none()
    """By scorer, how many of the best candidates by vote it rescored (``--top``); scorers that are absent: all."""
    deadline: dict[str, RescoreDeadline] | None = omitted_if_none()
    """By scorer whose last session a deadline ended, what it left out."""


class RescoreRecord(Record):
    """A line of rescores.jsonl after the header."""

    scorer: str
    scorer_hash: str | None
    """Content hash of the scorer's weights; None if the server reports none."""
    task_id: str
    test_index: Annotated[int, Field(ge=0)]
    grid: SkipValidation[list[list[int]]]
    """The candidate in the task's own orientation and colours; reading checks it as ``Grid.from_json`` does."""
    view: Annotated[int, Field(ge=0)]
    logprob: Annotated[float, Field(le=0, allow_inf_nan=False)] | None
    """Log-probability of the answer's tokens and the end of the turn; None if there is a failure."""
    n_tokens: Annotated[int, Field(gt=0)]
    """Number of these tokens."""
    method: str | None = omitted_if_none()
    """How the server scored (harness.client.scoring.score_format)."""
    failure: RescoreFailure | None = omitted_if_none()

    @model_validator(mode="after")
    def _check(self) -> RescoreRecord:
        if (self.logprob is None) != (self.failure is not None):
            raise ValueError("logprob: a line has either a log-probability or a failure")
        return self


@dataclass(slots=True)
class ScorerRescores:
    """The lines of one scorer."""

    hash: str | None
    by_output: dict[OutputKey, dict[Grid, dict[int, float | None]]] = field(default_factory=dict)
    """By test output, grid and view: the log-probability, None for a failure."""
    failures: dict[RescoreFailure, int] = field(default_factory=dict)
    lines: int = 0
    n_tokens: int = 0
    """Number of answer tokens of all lines."""


@dataclass(frozen=True, slots=True)
class Rescores:
    """The content of a rescores.jsonl."""

    header: RescoreHeader
    scorers: Mapping[str, ScorerRescores] = field(default_factory=dict)

    def of(self, scorer: str, task_id: str, test_index: int) -> dict[Grid, tuple[float, ...]]:
        """Return the log-probabilities of the candidates of a test output under views 0, 1, …, by grid.

        Candidates that lack a view, or have no log-probability under one, are left out.
        """
        complete = {}
        for grid, by_view in self._grids(scorer, task_id, test_index).items():
            values = [by_view.get(view) for view in range(self.header.views)]
            known = tuple(value for value in values if value is not None)
            if len(known) == len(values):
                complete[grid] = known
        return complete

    def failed(self, scorer: str, task_id: str, test_index: int) -> set[Grid]:
        """Return the candidates of a test output that have no log-probability under some view, and never will."""
        grids = self._grids(scorer, task_id, test_index)
        return {grid for grid, by_view in grids.items() if None in by_view.values()}

    def has(self, key: RescoreKey) -> bool:
        """Return whether there is a line with this key."""
        scorer, task_id, test_index, grid, view = key
        return view in self._grids(scorer, task_id, test_index).get(grid, {})

    def _grids(self, scorer: str, task_id: str, test_index: int) -> Mapping[Grid, Mapping[int, float | None]]:
        lines = self.scorers.get(scorer)
        return {} if lines is None else lines.by_output.get((task_id, test_index), {})


def read_rescores(path: Path) -> Rescores | None:
    """Return the content of a rescores.jsonl, without an incomplete last line (of a killed session).

    Returns:
        None if the file does not exist, or has no complete header yet.

    Raises:
        DataError: a line does not match its checksum, is no line of such a file or repeats a key, or the weights of a
            scorer change; the message names the line.
    """
    lines = enumerate(complete_lines(path), 1)
    if (first := next(lines, None)) is None:
        return None
    header = decode_line(RescoreHeader, first[1], f"{path}, line 1", _REMEDY)
    scorers: dict[str, ScorerRescores] = {}
    for number, line in lines:
        where = f"{path}, line {number}"
        _add_line(scorers, header, decode_line(RescoreRecord, line, where, _REMEDY), where)
    return Rescores(header, scorers)


def _add_line(scorers: dict[str, ScorerRescores], header: RescoreHeader, line: RescoreRecord, where: str) -> None:
    """Add a line to those of its scorer; raises as ``read_rescores``."""
    scorer = scorers.setdefault(line.scorer, ScorerRescores(line.scorer_hash))
    if scorer.hash != line.scorer_hash:
        raise DataError(
            f"{where}, scorer_hash: {line.scorer} has other weights ({line.scorer_hash}) than in the lines before "
            f"({scorer.hash}); remove one of the two kinds of lines"
        )
    if line.view >= header.views:
        raise DataError(f"{where}, view: {line.view} is not one of the {header.views} views of the header")
    try:
        grid = Grid.from_json(line.grid, "grid", long_rows=True)
    except GridError as error:
        raise DataError(f"{where}, {error}") from None
    by_view = scorer.by_output.setdefault((line.task_id, line.test_index), {}).setdefault(grid, {})
    if line.view in by_view:
        raise DataError(
            f"{where}: {line.scorer}, task {line.task_id}, test {line.test_index}, view {line.view} of this grid has a "
            "line before; remove one of the two"
        )
    by_view[line.view] = line.logprob
    scorer.lines += 1
    scorer.n_tokens += line.n_tokens
    if line.failure is not None:
        scorer.failures[line.failure] = scorer.failures.get(line.failure, 0) + 1


def scorers_of(rescores: Rescores, outputs: Collection[OutputKey]) -> list[str]:
    """Return the scorers that rescored candidates of these test outputs."""
    return [name for name, lines in rescores.scorers.items() if any(output in lines.by_output for output in outputs)]

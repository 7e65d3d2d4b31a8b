"""Predictions as scoring needs them, read line by line from predictions.jsonl."""

from __future__ import annotations

import math
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.core.errors import DataError, GridError, short_repr
from harness.core.grid import Grid
from harness.runs.logs.field_checks import check_index, check_number, check_text
from harness.runs.logs.json_grid import read_json_grid
from harness.runs.schemas.prediction_schema import FAILURES
from harness.runs.schemas.view_schema import GreedyRecord, ViewRecord

_OUTCOMES = frozenset(("grid", *FAILURES))

MASS_TOLERANCE = 1e-6
"""By how much the probabilities of a view's answers may exceed 1, per answer: the rounding of single precision.

The distribution after each prefix comes from a single completion, so different rounding in other batches cannot raise
the sum.
"""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One saved prediction, with the fields that scoring needs."""

    model: str
    task_id: str
    test_index: int
    outcome: str
    grid: Grid | None
    """None unless ``outcome`` is ``grid``."""
    sum_logprob: float | None
    """Log-probability of the answer; None if unknown."""
    n_tokens: int | None
    view: str | None = None
    """Name of the symmetry under which the prompt showed the task; None if unknown."""
    sample: int = 0
    """Index among the predictions for its test output."""
    seconds: float = 0.0
    text: str | None = None
    """The server's answer; None if there was none, and in other programs' files."""

    @property
    def mean_logprob(self) -> float | None:
        """Log-probability of the answer per token; None if unknown."""
        return self.sum_logprob / self.n_tokens if self.sum_logprob is not None and self.n_tokens else None


@dataclass(frozen=True, slots=True)
class EnumeratedView:
    """One view of a test output, with the answers that enumeration gave (``--search dfs``)."""

    model: str
    task_id: str
    test_index: int
    sample: int
    """Index of the view."""
    view: str
    """Name of the symmetry under which the prompt showed the task."""
    outcome: str
    """``enumerated``, or the failure of the view."""
    answers: tuple[Prediction, ...]
    """Likeliest first; ``sum_logprob`` of each is known."""
    greedy: Prediction | None
    """The answer that temperature 0 gives; None where it was truncated or the view failed."""
    unexplored: float
    """1 minus the probability of all answers."""
    truncated: int
    dropped: int
    requests: int
    n_tokens: int
    seconds: float


def read_predictions(predictions: Path, accept_unended: bool = False) -> Iterator[Prediction]:
    """Yield the predictions of a run's predictions.jsonl, without an incomplete last line (of a killed run).

    Args:
        accept_unended: whether a last line that lacks only its line break counts as complete.

    Raises:
        DataError: another line is not a drawn prediction; the message names line and field.
    """
    for where, line in read_json_lines(predictions, accept_unended):
        if "answer_index" in line or "view" in line:
            raise DataError(f"{where}: is a line of an enumerated view (--search dfs), not a drawn prediction")
        yield _parse_prediction(line, where)


def read_views(predictions: Path, accept_unended: bool = False) -> Iterator[EnumeratedView]:
    """Yield the views of a run with ``--search dfs``, without an incomplete last view (of a killed run).

    Args:
        accept_unended: as for ``read_predictions``.

    Raises:
        DataError: a line is neither an answer of the view whose closing record follows nor a closing record, or the
            two contradict each other; the message names line and field.
    """
    answers: list[Prediction] = []
    for where, line in read_json_lines(predictions, accept_unended):
        if "view" in line:
            yield close_view(line, answers, where)
            answers = []
        else:
            answers.append(parse_answer(line, len(answers), where))


def holds_views(predictions: Path) -> bool:
    """Return whether the first line of a predictions.jsonl belongs to an enumerated view.

    Raises:
        DataError: the first line is not JSON.
    """
    return any("answer_index" in line or "view" in line for _, line in islice(read_json_lines(predictions, True), 1))


def read_json_lines(predictions: Path, accept_unended: bool) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the position of each line, for messages, and its JSON object; see ``read_predictions``."""
    import orjson

    with predictions.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            unended = not line.endswith(b"\n")
            if number == 1:
                line = line.removeprefix(BOM_UTF8)
            if unended and not accept_unended:
                return
            where = f"{predictions}, line {number}"
            try:
                parsed = orjson.loads(line)
            except orjson.JSONDecodeError as error:
                if unended:
                    return
                raise DataError(f"{where}: not JSON ({error}); restore the file or run the benchmark again") from None
            if not isinstance(parsed, dict):
                raise DataError(f"{where}: expected an object, got {short_repr(parsed)}")
            yield where, parsed


def _parse_prediction(line: dict[str, object], where: str) -> Prediction:
    """Return the prediction of a parsed line, or raise DataError naming ``where`` and the field."""
    try:
        rows, outcome, augmentation = line["grid"], line["outcome"], line["augmentation"]
        grid = None if rows is None else read_json_grid(rows, f"{where}, grid")
        text = line.get("text")
        if not isinstance(augmentation, dict):
            raise DataError(f"{where}, augmentation: expected an object, got {short_repr(augmentation)}")
        return Prediction(
            model=check_text(line["model"], where, "model"),
            task_id=check_text(line["task_id"], where, "task_id"),
            test_index=check_index(line["test_index"], where, "test_index"),
            outcome=check_outcome(outcome, grid, where),
            grid=grid,
            sum_logprob=check_number(line["cumulative_logprob"], where, "cumulative_logprob"),
            n_tokens=None if line["n_tokens"] is None else check_index(line["n_tokens"], where, "n_tokens"),
            view=check_text(augmentation["symmetry"], where, "augmentation.symmetry"),
            sample=check_index(line["sample_index"], where, "sample_index"),
            seconds=check_number(line["seconds"], where, "seconds") or 0.0,
            text=text if isinstance(text, str) else None,
        )
    except KeyError as error:
        raise DataError(f"{where}: field {error} is missing") from None
    except GridError as error:
        raise DataError(str(error)) from None


def check_outcome(outcome: object, grid: Grid | None, where: str) -> str:
    """Return the outcome if it is one that goes with the grid, or with none, else raise DataError."""
    if not isinstance(outcome, str) or outcome not in _OUTCOMES:
        raise DataError(f"{where}, outcome: expected grid or {', '.join(FAILURES)}, got {short_repr(outcome)}")
    if (grid is None) == (outcome == "grid"):
        raise DataError(f"{where}: outcome {outcome!r} does not go with {'no' if grid is None else 'a'} grid")
    return outcome


def parse_answer(line: dict[str, object], index: int, where: str) -> Prediction:
    """Return the answer of a parsed line, which must be answer ``index`` of its view; see ``read_views``."""
    if "answer_index" not in line:
        raise DataError(f"{where}: expected an answer of an enumerated view or its closing record (no answer_index)")
    if type(line["answer_index"]) is not int or line["answer_index"] != index:
        raise DataError(f"{where}, answer_index: expected {index}, got {short_repr(line['answer_index'])}")
    answer = _parse_prediction(line, where)
    if answer.sum_logprob is None or not answer.n_tokens:
        raise DataError(f"{where}: an enumerated answer needs cumulative_logprob and n_tokens (1 or more)")
    return answer


def close_view(line: dict[str, object], answers: Sequence[Prediction], where: str) -> EnumeratedView:
    """Return the view that a closing record ends; see ``read_views``."""
    try:
        record = ViewRecord.model_validate(line, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(f"{where}, {'.'.join(map(str, first['loc'])) or 'view'}: {first['msg']}") from None
    _check_answers(record, answers, where)
    summary, symmetry = record.view, record.augmentation.symmetry
    greedy = summary.greedy
    if isinstance(greedy, GreedyRecord):
        fields = {**line, "grid": greedy.grid, "seconds": 0.0} | greedy.model_dump()
        greedy_answer: Prediction | None = _parse_prediction(fields, f"{where}, view.greedy")
    else:
        greedy_answer = None if greedy is None else answers[greedy]
    return EnumeratedView(
        *record.key, symmetry, summary.outcome, tuple(answers), greedy_answer, summary.unexplored, summary.truncated,
        summary.dropped, summary.requests, summary.n_tokens, summary.seconds,
    )  # fmt: skip


def total_mass(logprobs: Iterable[float]) -> float:
    """Return the sum of the probabilities of a view's answers."""
    return math.fsum(math.exp(min(logprob, 1.0)) for logprob in logprobs)


def _check_answers(record: ViewRecord, answers: Sequence[Prediction], where: str) -> None:
    """Check a view's answers against its closing record.

    Raises:
        DataError: their number, their view or their order differs, or their probabilities do not add up to
            1 - ``unexplored``.
    """
    if record.view.answers != len(answers):
        raise DataError(f"{where}, view.answers: {record.view.answers}, but {len(answers)} answers precede it")
    for answer in answers:
        view = (answer.model, answer.task_id, answer.test_index, answer.sample)
        if view != record.key:
            raise DataError(f"{where}: closes view {record.key}, but an answer of view {view} precedes it")
        if answer.view != (symmetry := record.augmentation.symmetry):
            raise DataError(f"{where}, augmentation.symmetry: {symmetry}, but an answer of {answer.view} precedes it")
    logprobs = [answer.sum_logprob or 0.0 for answer in answers]
    if any(earlier < later for earlier, later in pairwise(logprobs)):
        raise DataError(f"{where}: the answers that precede it are not in the order of their cumulative_logprob")
    total, tolerance = total_mass(logprobs), MASS_TOLERANCE * max(1, len(answers))
    if total > 1 + tolerance:
        raise DataError(f"{where}: the probabilities of the view's answers add up to {total:.7g}, which is over 1")
    if record.view.outcome == "enumerated" and abs(max(0.0, 1 - total) - record.view.unexplored) > tolerance:
        raise DataError(
            f"{where}, view.unexplored: {record.view.unexplored:.7g}, but the probabilities of the view's answers add "
            f"up to {total:.7g}"
        )

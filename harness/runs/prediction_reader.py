"""Predictions as scoring needs them, read line by line from predictions.jsonl."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.core.errors import DataError, GridError, short_repr
from harness.core.grid import Grid
from harness.runs.schema import FAILURES

_OUTCOMES = frozenset(("grid", *FAILURES))


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

    @property
    def mean_logprob(self) -> float | None:
        """Log-probability of the answer per token; None if unknown."""
        return self.sum_logprob / self.n_tokens if self.sum_logprob is not None and self.n_tokens else None


def read_predictions(predictions: Path, accept_unended: bool = False) -> Iterator[Prediction]:
    """Yield the predictions of a run's predictions.jsonl, without an incomplete last line (of a killed run).

    Args:
        accept_unended: whether a last line that lacks only its line break counts as complete.

    Raises:
        DataError: another line is not a prediction; the message names line and field.
    """
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
                yield _parse_prediction(orjson.loads(line), where)
            except orjson.JSONDecodeError as error:
                if unended:
                    return
                raise DataError(f"{where}: not JSON ({error}); restore the file or run the benchmark again") from None


def _parse_prediction(line: object, where: str) -> Prediction:
    """Return the prediction of a parsed line, or raise DataError naming ``where`` and the field."""
    if not isinstance(line, dict):
        raise DataError(f"{where}: expected an object, got {short_repr(line)}")
    try:
        rows, outcome, augmentation = line["grid"], line["outcome"], line["augmentation"]
        grid = None if rows is None else Grid.from_rows(rows, f"{where}, grid")
        if not isinstance(outcome, str) or outcome not in _OUTCOMES:
            raise DataError(f"{where}, outcome: expected grid or {', '.join(FAILURES)}, got {short_repr(outcome)}")
        if (grid is None) == (outcome == "grid"):
            raise DataError(f"{where}: outcome {outcome!r} does not go with {'no' if grid is None else 'a'} grid")
        if not isinstance(augmentation, dict):
            raise DataError(f"{where}, augmentation: expected an object, got {short_repr(augmentation)}")
        return Prediction(
            model=check_text(line["model"], where, "model"),
            task_id=check_text(line["task_id"], where, "task_id"),
            test_index=check_index(line["test_index"], where, "test_index"),
            outcome=outcome,
            grid=grid,
            sum_logprob=check_number(line["cumulative_logprob"], where, "cumulative_logprob"),
            n_tokens=None if line["n_tokens"] is None else check_index(line["n_tokens"], where, "n_tokens"),
            view=check_text(augmentation["symmetry"], where, "augmentation.symmetry"),
            sample=check_index(line["sample_index"], where, "sample_index"),
            seconds=check_number(line["seconds"], where, "seconds") or 0.0,
        )
    except KeyError as error:
        raise DataError(f"{where}: field {error} is missing") from None
    except GridError as error:
        raise DataError(str(error)) from None


def check_text(value: object, where: str, field: str) -> str:
    """Return the value if it is a text, else raise DataError naming ``where`` and the field."""
    if type(value) is not str:
        raise DataError(f"{where}, {field}: expected a text, got {short_repr(value)}")
    return value


def check_index(value: object, where: str, field: str) -> int:
    """Return the value if it is an integer in [0, 2**63), else raise DataError naming ``where`` and the field."""
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise DataError(f"{where}, {field}: expected a whole number from 0, got {short_repr(value)}")
    return value


def check_number(value: object, where: str, field: str) -> float | None:
    """Return the value if it is a number or null, else raise DataError naming ``where`` and the field."""
    if value is not None and type(value) is not float and type(value) is not int:
        raise DataError(f"{where}, {field}: expected a number or null, got {short_repr(value)}")
    try:
        return None if value is None else float(value)
    except OverflowError:
        raise DataError(f"{where}, {field}: {short_repr(value)} is too large") from None

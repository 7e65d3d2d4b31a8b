"""Saved answers, line by line, as scoring needs them."""

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
    """One saved prediction, as far as scoring needs it; ``grid`` is None where ``outcome`` is a failure.

    ``view`` is the symmetry under which the task was shown, None where the file does not say; ``sample`` is the
    prediction's place among those for its test output.
    """

    model: str
    task_id: str
    test_index: int
    outcome: str
    grid: Grid | None
    sum_logprob: float | None
    n_tokens: int | None
    view: str | None = None
    sample: int = 0
    seconds: float = 0.0

    @property
    def mean_logprob(self) -> float | None:
        """Log-probability a token; None where it is not known."""
        return self.sum_logprob / self.n_tokens if self.sum_logprob is not None and self.n_tokens else None


def read_predictions(predictions: Path, accept_unended: bool = False) -> Iterator[Prediction]:
    """The answers of a run's predictions.jsonl; a torn last line (a killed writer's) is left out.

    Args:
        accept_unended: whether a last line that is whole but for its line break counts.

    Raises:
        DataError: a line before the last one that is not a prediction, with its number and field.
    """
    import orjson

    with predictions.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            torn = not line.endswith(b"\n")
            if number == 1:
                line = line.removeprefix(BOM_UTF8)
            if torn and not accept_unended:
                return
            where = f"{predictions}, line {number}"
            try:
                yield _answer(orjson.loads(line), where)
            except orjson.JSONDecodeError as error:
                if torn:
                    return
                raise DataError(f"{where}: not JSON ({error}); restore the file or run the benchmark again") from None


def _answer(line: object, where: str) -> Prediction:
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
    """A text, or a DataError that names the place and the field."""
    if type(value) is not str:
        raise DataError(f"{where}, {field}: expected a text, got {short_repr(value)}")
    return value


def check_index(value: object, where: str, field: str) -> int:
    """A whole number from 0, or a DataError that names the place and the field."""
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise DataError(f"{where}, {field}: expected a whole number from 0, got {short_repr(value)}")
    return value


def check_number(value: object, where: str, field: str) -> float | None:
    """A number or null, or a DataError that names the place and the field."""
    if value is not None and type(value) is not float and type(value) is not int:
        raise DataError(f"{where}, {field}: expected a number or null, got {short_repr(value)}")
    try:
        return None if value is None else float(value)
    except OverflowError:
        raise DataError(f"{where}, {field}: {short_repr(value)} is too large") from None

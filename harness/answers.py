"""Saved answers, line by line, as scoring needs them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from harness.errors import DataError, GridError
from harness.grid import Grid


@dataclass(frozen=True, slots=True)
class Answer:
    """One saved prediction, as far as scoring needs it; ``grid`` is None where ``outcome`` is a failure."""

    model: str
    task_id: str
    test_index: int
    outcome: str
    grid: Grid | None
    sum_logprob: float | None
    n_tokens: int | None

    @property
    def mean_logprob(self) -> float | None:
        """Log-probability a token; None where it is not known."""
        return self.sum_logprob / self.n_tokens if self.sum_logprob is not None and self.n_tokens else None


def run_answers(predictions: Path) -> Iterator[Answer]:
    """The answers of a run's predictions.jsonl; a torn last line (a killed writer's) is left out.

    Raises:
        DataError: a line before the last one that is not a prediction, with its number and field.
    """
    import orjson

    with predictions.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.endswith(b"\n"):
                return
            where = f"{predictions}, line {number}"
            try:
                yield _answer(orjson.loads(line), where)
            except orjson.JSONDecodeError as error:
                raise DataError(f"{where}: not JSON ({error}); restore the file or run the benchmark again") from None


def _answer(line: object, where: str) -> Answer:
    if not isinstance(line, dict):
        raise DataError(f"{where}: expected an object, got {type(line).__name__}")
    try:
        rows, outcome = line["grid"], line["outcome"]
        grid = None if rows is None else Grid.from_rows(rows, f"{where}, grid")
        if (grid is None) == (outcome == "grid"):
            raise DataError(f"{where}: outcome {outcome!r} does not go with {'no' if grid is None else 'a'} grid")
        return Answer(
            model=line["model"],
            task_id=line["task_id"],
            test_index=line["test_index"],
            outcome=outcome,
            grid=grid,
            sum_logprob=line["cumulative_logprob"],
            n_tokens=line["n_tokens"],
        )
    except KeyError as error:
        raise DataError(f"{where}: field {error} is missing") from None
    except GridError as error:
        raise DataError(str(error)) from None

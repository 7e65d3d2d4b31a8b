"""Readers of attempts per test output: of arc24's and Kaggle's file, and of the ARC Prize folder."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from harness.core.errors import DataError, short_repr
from harness.core.grid import Grid
from harness.core.json_stream import iterate_elements
from harness.predictions.files.saved_grid import read_grid
from harness.predictions.prediction_groups import UNNAMED
from harness.runs.logs.field_checks import check_object
from harness.runs.logs.prediction_reader import Prediction

_ATTEMPT = re.compile(r"attempt_([1-9]\d{0,8})")
_NOT_TASKS = ("results.json",)
"""Files that the ARC Prize scorer writes beside the files of tasks."""


def read_attempts(path: Path, outputs: Mapping[str, int], problems: list[str]) -> Iterator[Prediction]:
    """Read ``{id: [{"attempt_1": grid, …}, …]}``, one object per test output, as arc24 and Kaggle save it."""
    seen: set[str] = set()
    for element in iterate_elements(path):
        where = f"{path}, line {element.line}"
        if element.key is None:
            raise DataError(f"{where}: expected an object of task id to test outputs, found a list")
        if element.key in seen:
            problems.append(f"task {element.key} occurs twice")
        seen.add(element.key)
        where += f", task {element.key}"
        entries = _list(element.value, where)
        if _check_count(element.key, len(entries), outputs, problems):
            for index, attempts in enumerate(entries):
                for sample, value in _attempts(attempts, f"{where}, test {index}"):
                    place = f"{where}, test {index}, attempt_{sample + 1}"
                    yield _prediction(element.key, index, sample, *read_grid(value, place))


def read_arcprize(path: Path, outputs: Mapping[str, int], problems: list[str]) -> Iterator[Prediction]:
    """Read the ARC Prize layout: a folder with one file per task, ``[{"attempt_1": {"answer": grid, …}, …}, …]``.

    A null attempt was given up after retries (``error``); a null entry has no attempts. ``metadata.pair_index`` gives
    the test output if every entry has one, else the order does; ``metadata.model`` gives the model. If the indices
    cover some outputs only, the others are missing: older runners skipped pairs without any attempt.
    """
    for file in task_files(path):
        task = file.name.removesuffix(".json")
        entries = [
            {} if e.value is None else check_object(e.value, f"{file}, test {e.index}") for e in iterate_elements(file)
        ]
        indices = _pair_indices(entries, outputs.get(task, 0))
        if indices is None:
            _check_count(task, len(entries), outputs, problems)
            continue
        for index, attempts in zip(indices, entries, strict=True):
            for sample, value in _attempts(attempts, f"{file}, test {index}"):
                where = f"{file}, test {index}, attempt_{sample + 1}"
                if value is None:
                    yield _prediction(task, index, sample, "error", None)
                    continue
                attempt = check_object(value, where)
                if "answer" not in attempt:
                    raise DataError(f"{where}: field 'answer' is missing")
                outcome, grid = read_grid(_decode_text(attempt["answer"]), f"{where}, answer")
                yield _prediction(task, index, sample, outcome, grid, _metadata(attempt, "model"))


def _prediction(
    task: str, index: int, sample: int, outcome: str, grid: Grid | None, model: object = UNNAMED
) -> Prediction:
    name = model if isinstance(model, str) and model else UNNAMED
    return Prediction(name, task, index, outcome, grid, None, None, None, sample)


def _list(value: object, where: str) -> list[object]:
    if not isinstance(value, list):
        raise DataError(f"{where}: expected a list of test outputs, got {short_repr(value)}")
    return value


def _attempts(value: object, where: str) -> Iterator[tuple[int, object]]:
    """Yield the attempts of one test output, each with its index from 0."""
    for name, attempt in check_object(value, where).items():
        match = _ATTEMPT.fullmatch(name)
        if match is None:
            raise DataError(f"{where}: expected attempt_1, attempt_2, …, got {short_repr(name)}")
        yield int(match[1]) - 1, attempt


def _check_count(task: str, count: int, outputs: Mapping[str, int], problems: list[str]) -> bool:
    """Return whether the dataset has the task with ``count`` test outputs; append a problem if not."""
    if task not in outputs:
        problems.append(f"task {task}: the dataset lacks it")
    elif outputs[task] != count:
        problems.append(f"task {task}: {count} test outputs, where the dataset has {outputs[task]}")
    return outputs.get(task) == count


def task_files(folder: Path) -> list[Path]:
    """Return the files of tasks in an ARC Prize folder, sorted by name.

    Raises:
        DataError: it is no folder.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: expected a folder with a file for each task")
    names = sorted(path for path in folder.glob("*.json") if path.is_file())
    return [path for path in names if path.name not in _NOT_TASKS and not path.name.startswith(".")]


def _metadata(attempt: object, name: str) -> object:
    metadata = attempt.get("metadata") if isinstance(attempt, dict) else None
    return metadata.get(name) if isinstance(metadata, dict) else None


def _pair_indices(entries: list[dict[str, object]], outputs: int) -> list[int] | None:
    """Return the test output of each entry: from the metadata if they are complete and consistent, else by order.

    Returns:
        Indices below ``outputs``; None if the number of entries is not ``outputs`` and the metadata do not help.
    """
    per_entry = [[_metadata(a, "pair_index") for a in entry.values() if a] for entry in entries if entry]
    indices = [ids[0] for ids in per_entry if ids and type(ids[0]) is int and all(index == ids[0] for index in ids)]
    if len(indices) == len(per_entry) == len(set(indices)) and indices and min(indices) >= 0 and max(indices) < outputs:
        remaining = iter(indices)
        return [next(remaining) if entry else 0 for entry in entries]  # an empty entry has no attempts: any index does
    return list(range(outputs)) if len(entries) == outputs else None


def _decode_text(answer: object) -> object:
    """Return the JSON value of an answer that was saved as text; text that is no JSON is returned as it is."""
    if isinstance(answer, str):
        try:
            return json.loads(answer)
        except (ValueError, RecursionError):
            return answer
    return answer

"""Readers of saved predictions: tables, arc24's two files, Kaggle's submission, the ARC Prize folder."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.core.errors import ConfigError, DataError, short_repr
from harness.core.grid import Grid
from harness.core.json_stream import first_character, iterate_elements
from harness.predictions.files.prediction_tables import table_predictions
from harness.predictions.files.saved_grid import read_grid
from harness.predictions.files.table_rows import TABLE_ENDINGS, holds_table, open_table
from harness.predictions.prediction_groups import UNNAMED
from harness.runs.logs.field_checks import check_index, check_number, check_text
from harness.runs.logs.prediction_reader import Prediction, read_predictions

Reader = Callable[[Path, Mapping[str, int], list[str]], Iterator[Prediction]]
"""Yields the predictions of a file.

Its arguments: the path, the number of test outputs by task id, and a list to which it appends problems of the content
that do not keep it from reading on.
"""

_ATTEMPT = re.compile(r"attempt_([1-9]\d{0,8})")
_NOT_TASKS = ("results.json",)
"""Files that the ARC Prize scorer writes beside the files of tasks."""


@dataclass(frozen=True, slots=True)
class Format:
    """A format of saved predictions."""

    name: str
    summary: str
    read: Reader
    attempts: int | None = None
    """Maximum number of predictions per test output; None for any number."""


def read_lines(path: Path, outputs: Mapping[str, int], problems: list[str]) -> Iterator[Prediction]:
    """Read our predictions.jsonl, inside a run folder or alone."""
    return read_predictions(path, accept_unended=True)


def read_table(path: Path, outputs: Mapping[str, int], problems: list[str]) -> Iterator[Prediction]:
    """Read the drawn predictions of a table (``bench export``); ``group_table`` reads the other kinds."""
    return table_predictions(open_table(path))


def read_task_results(path: Path, outputs: Mapping[str, int], problems: list[str]) -> Iterator[Prediction]:
    """Read arc24's ``*_task_results.json``: a list of ``{task_id, idx, grid, cumulative_logprob, n_tokens, …}``.

    An empty grid is a failed prediction (``unparsed``); ``data_augmentation_kwargs`` gives the view.
    """
    seen: Counter[tuple[str, int]] = Counter()
    for element in iterate_elements(path):
        where = f"{path}, line {element.line}, entry {element.index}"
        entry = _object(element.value, where)
        if "attempt_1" in entry:
            raise DataError(f"{where}: this is one task's file of the ARC Prize layout; name the folder it lies in")
        for name in ("task_id", "idx", "grid"):
            if name not in entry:
                raise DataError(f"{where}: field {name!r} is missing")
        task, index = check_text(entry["task_id"], where, "task_id"), check_index(entry["idx"], where, "idx")
        tokens = entry.get("n_tokens")
        outcome, grid = read_grid(entry["grid"], f"{where}, grid")
        yield Prediction(
            model=UNNAMED,
            task_id=task,
            test_index=index,
            outcome=outcome,
            grid=grid,
            sum_logprob=check_number(entry.get("cumulative_logprob"), where, "cumulative_logprob"),
            n_tokens=None if tokens is None else check_index(tokens, where, "n_tokens"),
            view=_view(entry.get("data_augmentation_kwargs")),
            sample=seen[task, index],
        )
        seen[task, index] += 1


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
    for file in _task_files(path):
        task = file.name.removesuffix(".json")
        entries = [
            {} if e.value is None else _object(e.value, f"{file}, test {e.index}") for e in iterate_elements(file)
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
                attempt = _object(value, where)
                if "answer" not in attempt:
                    raise DataError(f"{where}: field 'answer' is missing")
                outcome, grid = read_grid(_decode_text(attempt["answer"]), f"{where}, answer")
                yield _prediction(task, index, sample, outcome, grid, _metadata(attempt, "model"))


FORMATS: dict[str, Format] = {
    form.name: form
    for form in (
        Format("lines", "our predictions.jsonl", read_lines),
        Format("table", "a table of bench export: .parquet, .csv, or .jsonl", read_table),
        Format("arc24", "arc24's *_task_results.json", read_task_results),
        Format("attempts", "{id: [{attempt_1: grid, …}, …]}, any number of attempts", read_attempts),
        Format("kaggle", "Kaggle's submission.json: the same with two attempts", read_attempts, attempts=2),
        Format("arcprize", "the ARC Prize folder: a file for each task", read_arcprize),
    )
}
"""By name, every format that is read besides run folders."""


def detect_format(path: Path) -> Format:
    """Return the format of a file or folder, detected from its name and first character.

    Raises:
        DataError: the format is unknown.
    """
    if path.is_dir():
        if not any(_task_files(path)):
            raise DataError(f"{path}: neither a run (no manifest.json) nor an ARC Prize folder (no .json files)")
        return FORMATS["arcprize"]
    if path.name.endswith(".jsonl"):
        return FORMATS["table" if holds_table(path) else "lines"]
    if path.name.endswith(TABLE_ENDINGS):
        return FORMATS["table"]
    forms = {"[": "arc24", "{": "attempts"}
    if (start := first_character(path)) not in forms:
        raise DataError(f"{path}: begins like none of the known forms; name one with --format ({', '.join(FORMATS)})")
    return FORMATS[forms[start]]


def format_named(name: str) -> Format:
    """Return the format with this name.

    Raises:
        ConfigError: no format has this name.
    """
    if name not in FORMATS:
        raise ConfigError(f"there is no format {name!r}; choose one of {', '.join(FORMATS)}")
    return FORMATS[name]


def _prediction(
    task: str, index: int, sample: int, outcome: str, grid: Grid | None, model: object = UNNAMED
) -> Prediction:
    name = model if isinstance(model, str) and model else UNNAMED
    return Prediction(name, task, index, outcome, grid, None, None, None, sample)


def _list(value: object, where: str) -> list[object]:
    if not isinstance(value, list):
        raise DataError(f"{where}: expected a list of test outputs, got {short_repr(value)}")
    return value


def _object(value: object, where: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected an object, got {short_repr(value)}")
    return value


def _attempts(value: object, where: str) -> Iterator[tuple[int, object]]:
    """Yield the attempts of one test output, each with its index from 0."""
    for name, attempt in _object(value, where).items():
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


def _task_files(folder: Path) -> list[Path]:
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


def _view(kwargs: object) -> str | None:
    """Return a name for arc24's geometric augmentation: ``identity`` if it changes nothing, None if it is not given."""
    if not isinstance(kwargs, dict) or not {"hflip", "n_rot90"} <= kwargs.keys():
        return None
    flipped, turns = bool(kwargs["hflip"]), kwargs["n_rot90"]
    if not flipped and turns in (0, None):
        return "identity"
    return f"{'flip ' if flipped else ''}{turns} x rot90"

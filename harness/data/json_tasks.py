"""Reads tasks from ARC's JSON files in every common form, and checks every cell.

- One task: ``{"train": [...], "test": [...]}``; ``name`` and other fields are ignored.
- Combined: ``{id: task}``, or a list of tasks with an ``id`` each. ``*challenges.json`` takes its outputs from
  ``*solutions.json`` beside it.
- re-arc: ``{id: [pair, ...]}``, or one ``[pair, ...]`` per file. Tasks are drawn from the pairs.
- Variants: ``{id: [task, ...]}``. Each draw picks one.
- No test: ``{"train": [...], "n_train": 4}``. Each draw picks 4 train pairs and a test pair.
- BARC's ``synthetic_problems``: ``{"examples": [pair, ...], "code": "...", ...}``, one per file. Tasks are drawn from
  the pairs; programs, annotations and other fields are ignored.
- 1D-ARC: a task whose grids all have one row, which may have up to 128 cells instead of 30.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from harness.core.errors import DataError
from harness.core.files import find_files, log
from harness.core.grid import Grid, OversizeError, Pair, Task
from harness.data.json_forms import has_single_rows, is_barc_problem, is_list_of_tasks, is_task, json_type, read_json
from harness.data.solutions_file import merge_solutions, solutions_of
from harness.data.task_sources import MIN_PAIRS, FixedTask, PairList, TaskSource, TaskVariants

JSON_ENDINGS = (".json", ".json.gz")
_ID_FIELDS = ("id", "task_id", "name")
"""Fields that can hold the id of a task in a list; the first that a task has counts."""


class TooFewPairsError(DataError):
    """A list has too few pairs."""


def read_sources(path: Path, strict: bool = False) -> tuple[TaskSource, ...]:
    """Return every task of a file in its order, or of a folder of one-task files in the order of their names.

    Args:
        strict: raise an error for a pair over 30x30, or a BARC problem of too few pairs, that is left out otherwise.

    Raises:
        DataError: a task is not valid; the message names file, task and field, and what was expected.
    """
    sources = tuple(_read_folder(path, strict) if path.is_dir() else _read_file(path, strict))
    if not sources:
        raise DataError(f"{path}: none of its files holds a usable task")
    if oversize := [source for source in sources if isinstance(source, PairList) and source.oversize]:
        count = sum(source.oversize for source in oversize)
        log.warning("%s: %d pairs with a side over 30 are left out, the first in task %s", path, count, oversize[0].id)
    return sources


def _read_folder(folder: Path, strict: bool) -> Iterator[TaskSource]:
    root = folder / "tasks" if (folder / "tasks").is_dir() else folder  # re-arc keeps a metadata.json beside its tasks
    files = sorted(find_files(root, JSON_ENDINGS))
    if not files:
        raise DataError(f"{folder}: no .json files; expected a folder of one-task files")
    path_of: dict[str, Path] = {}
    for path in files:
        data = read_json(path)
        if is_list_of_tasks(data) or not (isinstance(data, list) or is_task(data) or is_barc_problem(data)):
            raise DataError(
                f"{path}: expected one task with 'train' (a folder holds one-task files); name the file itself"
            )
        name = _task_id(path)
        if name in path_of:
            raise DataError(f"{path}: task id {name} is taken by {path_of[name]}; ids are the file names")
        path_of[name] = path
        try:
            yield _parse_source(name, data, str(path), strict)
        except TooFewPairsError as error:
            if strict or not is_barc_problem(data):
                raise
            log.warning("%s; the problem is left out", error)


def _read_file(path: Path, strict: bool) -> Iterator[TaskSource]:
    data = read_json(path)
    if is_list_of_tasks(data):
        data = _by_id(data, path)
    elif isinstance(data, list) or is_task(data) or is_barc_problem(data):
        yield _parse_source(_task_id(path), data, str(path), strict)
        return
    if not isinstance(data, dict) or not data:
        raise DataError(f"{path}: expected an object of task id to task, got {json_type(data)}")
    if (sibling := solutions_of(path)) is not None:
        merge_solutions(data, path, sibling)
    for name, value in data.items():
        yield _parse_source(name, value, str(path), strict)


def _by_id(tasks: list[dict[str, object]], path: Path) -> dict[str, object]:
    """Return a list of tasks in the combined form ``{id: task}``."""
    by_id: dict[str, object] = {}
    for index, task in enumerate(tasks):
        name = _listed_id(task)
        if name is None:
            raise DataError(
                f"{path}, entry {index}: a list of tasks needs an 'id' in each (a text); forms of one task are written "
                "{id: [task, …]}"
            )
        if name in by_id:
            raise DataError(f"{path}, entry {index}: task id {name} occurs twice")
        by_id[name] = task
    return by_id


def _listed_id(task: dict[str, object]) -> str | None:
    """Return the id of a task in a list, or None if it has none of _ID_FIELDS."""
    return next((name for field in _ID_FIELDS if isinstance(name := task.get(field), str) and name), None)


def read_task(name: str, data: dict[str, object], where: str) -> Task:
    """Return a task with test pairs from its JSON form.

    Raises:
        DataError: the task is not valid; the message names ``where``, the task and field, and what was expected.
    """
    source = _parse_source(name, data, where)
    if not isinstance(source, FixedTask):
        raise DataError(f"{where}, task {name}, field 'test': expected a list of pairs, got nothing")
    return source.task


def _task_id(path: Path) -> str:
    """Return the task id of a one-task file: its name without ``.json`` or ``.json.gz``."""
    return path.name.removesuffix(".gz").removesuffix(".json")


def _parse_source(name: str, data: object, where: str, strict: bool = False) -> TaskSource:
    """Parse the entry of one id: a task, a list of pairs, a list of variants, or a task without test."""
    _check_id(name, where)
    place = f"{where}, task {name}"
    if is_list_of_tasks(data):
        return _parse_variants(name, data, where, strict)
    if isinstance(data, list) and data:
        return _parse_pair_list(name, data, place, strict)
    if is_barc_problem(data):
        return _parse_pair_list(name, data["examples"], f"{place}, field 'examples'", strict)  # type: ignore[arg-type]
    if not isinstance(data, dict):
        raise DataError(f"{place}: expected a task with 'train' and 'test' or a list of pairs, got {json_type(data)}")
    for field in ("train", "test"):
        if not isinstance(data.get(field), list) and not (field == "test" and "n_train" in data):
            raise DataError(f"{place}, field {field!r}: expected a list of pairs, got {json_type(data.get(field))}")
    long_rows = "test" in data and has_single_rows(data["train"] + data["test"])
    train = tuple(_parse_pair(p, f"{place}, train {i}", True, long_rows) for i, p in enumerate(data["train"]))
    if "test" not in data:
        return _without_test(name, train, data["n_train"], place)
    test = tuple(_parse_pair(p, f"{place}, test {i}", False, long_rows) for i, p in enumerate(data["test"]))
    return _with_test(name, train, test, place)


def _check_id(name: str, where: str) -> None:
    """Raise DataError for an id that cannot be a line of an ids file."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise DataError(f"{where}, task {name!r}: an id must be text in UTF-8") from None
    if not name.strip() or "\n" in name or "\r" in name:
        raise DataError(f"{where}, task {name!r}: an id must be one line with something in it")


def _parse_variants(name: str, tasks: list[dict[str, object]], where: str, strict: bool) -> TaskVariants:
    ids = {task.get(field) for task in tasks for field in ("id", "task_id") if isinstance(task.get(field), str)}
    if len(ids) > 1:
        raise DataError(
            f"{where}, {name}: holds tasks with ids of their own, where forms of one task were expected; write "
            "{id: task, …} or a list of these tasks alone"
        )
    variants = (_parse_source(name, task, f"{where}, variant {i}", strict) for i, task in enumerate(tasks))
    return TaskVariants(name, tuple(variants))


def _parse_pair_list(name: str, items: list[object], place: str, strict: bool) -> PairList:
    """Parse a list of pairs. Pairs over 30x30, which the published re-arc contains, are left out unless ``strict``."""
    pairs: list[Pair] = []
    for i, item in enumerate(items):
        try:
            pairs.append(_parse_pair(item, f"{place}, pair {i}", need_output=True))
        except OversizeError:
            if strict:
                raise
    if len(pairs) < MIN_PAIRS:
        raise TooFewPairsError(f"{place}: {len(pairs)} pairs; a task drawn from a list of pairs needs {MIN_PAIRS}")
    return PairList(name, tuple(pairs), oversize=len(items) - len(pairs))


def _without_test(name: str, pairs: tuple[Pair, ...], n_train: object, place: str) -> PairList:
    if type(n_train) is not int or not 1 <= n_train < len(pairs):
        raise DataError(
            f"{place}, field 'n_train': expected a number from 1 to {len(pairs) - 1} (one pair less than in 'train'), "
            f"got {n_train!r}"
        )
    return PairList(name, pairs, n_train, n_train)


def _with_test(name: str, train: tuple[Pair, ...], test: tuple[Pair, ...], place: str) -> FixedTask:
    if not train or not test:
        raise DataError(f"{place}, field {'test' if train else 'train'!r}: expected at least one pair, got none")
    known = [pair.output is not None for pair in test]
    if any(known) and not all(known):
        raise DataError(
            f"{place}, test {known.index(False)}, field 'output': missing, while other test pairs have theirs"
        )
    return FixedTask(Task(name, train, test))


def _parse_pair(data: object, where: str, need_output: bool, long_rows: bool = False) -> Pair:
    if not isinstance(data, dict):
        raise DataError(f"{where}: expected an object with 'input' and 'output', got {json_type(data)}")
    output = data.get("output")
    for field, needed in (("input", True), ("output", need_output)):
        if needed and data.get(field) is None:
            raise DataError(f"{where}, field {field!r}: missing; expected a grid")
    return Pair(
        Grid.from_rows(data["input"], f"{where}, field 'input'", long_rows),
        None if output is None else Grid.from_rows(output, f"{where}, field 'output'", long_rows),
    )

"""ARC's JSON files, in every form that circulates, checked to the last cell.

One task: ``{"train": [...], "test": [...]}``, with or without ``name`` and other fields. Combined: ``{id: task}``,
where ``*challenges.json`` takes its outputs from ``*solutions.json`` beside it, or a list of tasks with an ``id`` each.
re-arc: ``{id: [pair, ...]}``, or one ``[pair, ...]`` a file. TaskVariants: ``{id: [task, ...]}``. No test:
``{"train": [...], "n_train": 4}``, where a test is drawn from the pairs each time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

from harness.core.errors import DataError
from harness.core.files import find_files, log, read_uncompressed
from harness.core.grid import Grid, OversizeError, Pair, Task
from harness.core.json_stream import parse_json
from harness.data.task_sources import MIN_PAIRS, FixedTask, PairList, TaskSource, TaskVariants

JSON_ENDINGS = (".json", ".json.gz")
_ID_FIELDS = ("id", "task_id", "name")
"""Where a task of a list may have its id, the first one that it has."""


def read_sources(path: Path, strict: bool = False) -> tuple[TaskSource, ...]:
    """Every task of a file or folder, in the order of the file or of the names.

    Args:
        strict: a pair of a list of pairs that is over 30x30 is an error; else it is left out and counted.

    Raises:
        DataError: naming the file, the task, the field and what was expected.
    """
    sources = tuple(_folder(path, strict) if path.is_dir() else _file(path, strict))
    if blemished := [source for source in sources if isinstance(source, PairList) and source.oversize]:
        count = sum(source.oversize for source in blemished)
        log.warning("%s: %d pairs with a side over 30 are left out, the first in task %s", path, count, blemished[0].id)
    return sources


def _folder(folder: Path, strict: bool) -> Iterator[TaskSource]:
    root = folder / "tasks" if (folder / "tasks").is_dir() else folder  # re-arc keeps a metadata.json beside its tasks
    files = sorted(find_files(root, JSON_ENDINGS))
    if not files:
        raise DataError(f"{folder}: no .json files; expected a folder of one-task files")
    seen: dict[str, Path] = {}
    for path in files:
        data = _parse(path)
        if _is_list_of_tasks(data) or (not isinstance(data, list) and not _is_task(data)):
            raise DataError(
                f"{path}: expected one task with 'train' (a folder holds one-task files); name the file itself"
            )
        name = task_name(path)
        if name in seen:
            raise DataError(f"{path}: task id {name} is taken by {seen[name]}; ids are the file names")
        seen[name] = path
        yield _source(name, data, str(path), strict)


def _file(path: Path, strict: bool) -> Iterator[TaskSource]:
    data = _parse(path)
    if _is_list_of_tasks(data):
        data = _by_id(data, path)
    elif isinstance(data, list) or _is_task(data):
        yield _source(task_name(path), data, str(path), strict)
        return
    if not isinstance(data, dict) or not data:
        raise DataError(f"{path}: expected an object of task id to task, got {_kind(data)}")
    if (sibling := _solutions_of(path)) is not None:
        _merge_solutions(data, path, sibling)
    for name, value in data.items():
        yield _source(name, value, str(path), strict)


def _by_id(tasks: list[dict[str, object]], path: Path) -> dict[str, object]:
    """The combined form of a list of tasks."""
    by_id: dict[str, object] = {}
    for index, task in enumerate(tasks):
        name = _own_id(task)
        if name is None:
            raise DataError(
                f"{path}, entry {index}: a list of tasks needs an 'id' in each (a text); forms of one task are written "
                "{id: [task, …]}"
            )
        if name in by_id:
            raise DataError(f"{path}, entry {index}: task id {name} is there twice")
        by_id[name] = task
    return by_id


def _own_id(task: dict[str, object]) -> str | None:
    return next((name for field in _ID_FIELDS if isinstance(name := task.get(field), str) and name), None)


def read_task(name: str, data: dict[str, object], where: str) -> Task:
    """One task with its own tests from its JSON form.

    Raises:
        DataError: naming ``where``, the task, the field and what was expected.
    """
    source = _source(name, data, where)
    if not isinstance(source, FixedTask):
        raise DataError(f"{where}, task {name}, field 'test': expected a list of pairs, got nothing")
    return source.task


def task_name(path: Path) -> str:
    """The task id of a one-task file: its name without ``.json`` or ``.json.gz``."""
    return path.name.removesuffix(".gz").removesuffix(".json")


def _parse(path: Path) -> object:
    return parse_json(read_uncompressed(path), str(path))


def _is_task(data: object) -> TypeGuard[dict[str, object]]:
    return isinstance(data, dict) and isinstance(data.get("train"), list)


def _is_list_of_tasks(data: object) -> TypeGuard[list[dict[str, object]]]:
    return isinstance(data, list) and bool(data) and all(map(_is_task, data))


def _solutions_of(path: Path) -> Path | None:
    """The solutions file beside a challenges file, zipped or not."""
    plain = path.name.removesuffix(".gz")
    if not plain.endswith("challenges.json"):
        return None
    beside = path.with_name(plain.removesuffix("challenges.json") + "solutions.json")
    return next((file for file in (beside, beside.with_name(beside.name + ".gz")) if file.is_file()), None)


def _merge_solutions(data: dict[str, object], path: Path, sibling: Path) -> None:
    solutions = _parse(sibling)
    if not isinstance(solutions, dict):
        raise DataError(f"{sibling}: expected an object of task id to list of output grids, got {_kind(solutions)}")
    if extra := sorted(solutions.keys() - data.keys()):
        raise DataError(f"{sibling}: solves task {extra[0]}, which {path} does not have")
    for name, task in data.items():
        tests = task.get("test") if isinstance(task, dict) else None
        if not isinstance(tests, list):
            continue  # reported with its place when the task itself is read
        outputs = solutions.get(name)
        if not isinstance(outputs, list) or len(outputs) != len(tests):
            found = f"{len(outputs)} outputs" if isinstance(outputs, list) else _kind(outputs)
            raise DataError(f"{sibling}, task {name}: expected a list of {len(tests)} outputs, got {found}")
        for i, (test, output) in enumerate(zip(tests, outputs, strict=True)):
            if isinstance(test, dict) and test.setdefault("output", output) != output:
                raise DataError(f"{sibling}, task {name}, test {i}: another output than in {path}")


def _source(name: str, data: object, where: str, strict: bool = False) -> TaskSource:
    _check_id(name, where)
    place = f"{where}, task {name}"
    if _is_list_of_tasks(data):
        return _variants(name, data, where, strict)
    if isinstance(data, list) and data:
        return _pool(name, data, place, strict)
    if not isinstance(data, dict):
        raise DataError(f"{place}: expected a task with 'train' and 'test' or a list of pairs, got {_kind(data)}")
    for field in ("train", "test"):
        if not isinstance(data.get(field), list) and not (field == "test" and "n_train" in data):
            raise DataError(f"{place}, field {field!r}: expected a list of pairs, got {_kind(data.get(field))}")
    train = _pairs(data["train"], place, "train")
    return _no_test(name, train, data["n_train"], place) if "test" not in data else _whole(name, train, data, place)


def _check_id(name: str, where: str) -> None:
    """Refuse an id that no file of ids (a line each) could hold."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise DataError(f"{where}, task {name!r}: an id must be text in UTF-8") from None
    if not name.strip() or "\n" in name or "\r" in name:
        raise DataError(f"{where}, task {name!r}: an id must be one line with something in it")


def _variants(name: str, tasks: list[dict[str, object]], where: str, strict: bool) -> TaskVariants:
    ids = {task.get(field) for task in tasks for field in ("id", "task_id") if isinstance(task.get(field), str)}
    if len(ids) > 1:
        raise DataError(
            f"{where}, {name}: holds tasks with ids of their own, where forms of one task were expected; write "
            "{id: task, …} or a list of these tasks alone"
        )
    return TaskVariants(
        name, tuple(_source(name, task, f"{where}, variant {i}", strict) for i, task in enumerate(tasks))
    )


def _pool(name: str, items: list[object], place: str, strict: bool) -> PairList:
    """A list of pairs, without those over 30x30, which re-arc as published has."""
    pairs: list[Pair] = []
    for i, item in enumerate(items):
        try:
            pairs.append(_pair(item, f"{place}, pair {i}", need_output=True))
        except OversizeError:
            if strict:
                raise
    if len(pairs) < MIN_PAIRS:
        raise DataError(f"{place}: {len(pairs)} pairs; a task drawn from a list of pairs needs {MIN_PAIRS}")
    return PairList(name, tuple(pairs), oversize=len(items) - len(pairs))


def _no_test(name: str, pairs: tuple[Pair, ...], n_train: object, place: str) -> PairList:
    if type(n_train) is not int or not 1 <= n_train < len(pairs):
        raise DataError(
            f"{place}, field 'n_train': expected a number from 1 to {len(pairs) - 1} (one pair less than in 'train'), "
            f"got {n_train!r}"
        )
    return PairList(name, pairs, n_train, n_train)


def _whole(name: str, train: tuple[Pair, ...], data: dict[str, object], place: str) -> FixedTask:
    tests = data["test"]
    assert isinstance(tests, list)  # checked by the caller
    test = tuple(_pair(item, f"{place}, test {i}", need_output=False) for i, item in enumerate(tests))
    if not train or not test:
        raise DataError(f"{place}, field {'test' if train else 'train'!r}: expected at least one pair, got none")
    known = [pair.output is not None for pair in test]
    if any(known) and not all(known):
        raise DataError(
            f"{place}, test {known.index(False)}, field 'output': missing, while other test pairs have theirs"
        )
    return FixedTask(Task(name, train, test))


def _pairs(items: list[object], place: str, part: str) -> tuple[Pair, ...]:
    return tuple(_pair(item, f"{place}, {part} {i}", need_output=True) for i, item in enumerate(items))


def _pair(data: object, where: str, need_output: bool) -> Pair:
    if not isinstance(data, dict):
        raise DataError(f"{where}: expected an object with 'input' and 'output', got {_kind(data)}")
    output = data.get("output")
    for field, needed in (("input", True), ("output", need_output)):
        if needed and data.get(field) is None:
            raise DataError(f"{where}, field {field!r}: missing; expected a grid")
    return Pair(
        Grid.from_rows(data["input"], f"{where}, field 'input'"),
        None if output is None else Grid.from_rows(output, f"{where}, field 'output'"),
    )


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "nothing"}
    return names.get(type(value), "a number")

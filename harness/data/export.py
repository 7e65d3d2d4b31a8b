"""Writes datasets in ARC's combined JSON form."""

from __future__ import annotations

from pathlib import Path

from harness.core.errors import ConfigError, DataError
from harness.core.files import atomic_writer
from harness.core.grid import Pair, Task
from harness.data.dataset import Dataset, iterate_tasks

CHALLENGES = "challenges.json"
JsonPair = dict[str, list[list[int]]]


def export_dataset(dataset: Dataset, path: Path) -> list[Path]:
    """Write every task in its fixed draw, and return the paths of the written files.

    ``NAME.json`` holds tasks with their outputs. If the name ends in ``challenges.json``, the test outputs go to
    ``...solutions.json`` beside it, as on Kaggle; without any known test output there is no such file.

    Raises:
        ConfigError: the name does not end in ``.json``, or a solutions file of other tasks is beside it.
        DataError: only some tasks have test outputs.
    """
    import orjson

    if path.suffix != ".json":
        raise ConfigError(f"{path}: the combined form is written to a name that ends in .json")
    split = path.name.endswith(CHALLENGES)
    tasks: dict[str, object] = {}
    solutions: dict[str, object] = {}
    for task in iterate_tasks(dataset):
        tasks[task.id] = _task_json(task, with_test_outputs=not split)
        if all(pair.output is not None for pair in task.test):
            solutions[task.id] = [pair.output.to_rows() for pair in task.test if pair.output is not None]
    if not tasks:
        raise DataError(f"{dataset.spec}: no task could be read, so that there is nothing to export")
    files = {path: tasks}
    beside = path.with_name(path.name.removesuffix(CHALLENGES) + "solutions.json")
    if split and not solutions and beside.exists():
        raise ConfigError(
            f"{beside} would be read as the solutions of {dataset.spec}, which has none; remove it, or export to "
            "another name"
        )
    if split and solutions:
        if unsolved := [name for name in tasks if name not in solutions]:
            raise DataError(
                f"{dataset.spec}: task {unsolved[0]} has no outputs while others do; export to a plain .json"
            )
        files[beside] = solutions
    for name, content in files.items():
        with atomic_writer(name) as file:
            file.write(orjson.dumps(content) + b"\n")
    return list(files)


def _task_json(task: Task, with_test_outputs: bool) -> dict[str, list[JsonPair]]:
    test = [_pair_json(pair) if with_test_outputs else {"input": pair.input.to_rows()} for pair in task.test]
    return {"train": [_pair_json(pair) for pair in task.train], "test": test}


def _pair_json(pair: Pair) -> JsonPair:
    output = {} if pair.output is None else {"output": pair.output.to_rows()}
    return {"input": pair.input.to_rows(), **output}

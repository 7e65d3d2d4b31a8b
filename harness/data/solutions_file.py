"""The solutions file beside a challenges file, as on Kaggle: the test outputs of its tasks."""

from __future__ import annotations

from pathlib import Path

from harness.core.errors import DataError
from harness.data.json_forms import json_type, read_json


def solutions_of(path: Path) -> Path | None:
    """Return the solutions file beside a challenges file, plain or gzipped, or None if there is none."""
    plain = path.name.removesuffix(".gz")
    if not plain.endswith("challenges.json"):
        return None
    beside = path.with_name(plain.removesuffix("challenges.json") + "solutions.json")
    return next((file for file in (beside, beside.with_name(beside.name + ".gz")) if file.is_file()), None)


def merge_solutions(data: dict[str, object], path: Path, sibling: Path) -> None:
    """Add the outputs of a solutions file to the test pairs in ``data``, the tasks of a challenges file by id.

    Raises:
        DataError: the solutions are not those of these tasks.
    """
    solutions = read_json(sibling)
    if not isinstance(solutions, dict):
        raise DataError(f"{sibling}: expected an object of task id to list of output grids, got {json_type(solutions)}")
    if extra := sorted(solutions.keys() - data.keys()):
        raise DataError(f"{sibling}: solves task {extra[0]}, which {path} does not have")
    for name, task in data.items():
        tests = task.get("test") if isinstance(task, dict) else None
        if not isinstance(tests, list):
            continue  # an error when the task itself is parsed
        outputs = solutions.get(name)
        if not isinstance(outputs, list) or len(outputs) != len(tests):
            actual = f"{len(outputs)} outputs" if isinstance(outputs, list) else json_type(outputs)
            raise DataError(f"{sibling}, task {name}: expected a list of {len(tests)} outputs, got {actual}")
        for i, (test, output) in enumerate(zip(tests, outputs, strict=True)):
            if isinstance(test, dict) and test.setdefault("output", output) != output:
                raise DataError(f"{sibling}, task {name}, test {i}: another output than in {path}")

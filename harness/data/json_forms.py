"""Read JSON files and recognise the forms of tasks in them, before their grids are checked."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TypeGuard

from harness.core.files import read_uncompressed
from harness.core.json_stream import parse_json


def read_json(path: Path) -> object:
    """Return the value of a JSON file, gzipped or not.

    Raises:
        DataError: it is not JSON.
    """
    return parse_json(read_uncompressed(path), str(path))


def is_task(data: object) -> TypeGuard[dict[str, object]]:
    """Return whether a value looks like one task: an object with a list of train pairs."""
    return isinstance(data, dict) and isinstance(data.get("train"), list)


def is_list_of_tasks(data: object) -> TypeGuard[list[dict[str, object]]]:
    """Return whether a value is a filled list of what looks like tasks."""
    return isinstance(data, list) and bool(data) and all(map(is_task, data))


def is_barc_problem(data: object) -> TypeGuard[dict[str, object]]:
    """Return whether a value is one of BARC's ``synthetic_problems``: pairs under ``examples``, and a program."""
    return isinstance(data, dict) and isinstance(data.get("examples"), list) and isinstance(data.get("code"), str)


def has_single_rows(pairs: Iterable[object]) -> bool:
    """Return whether every grid of these pairs is a list of one row, as in 1D-ARC."""
    fields = [pair.get(name) for pair in pairs if isinstance(pair, dict) for name in ("input", "output")]
    grids = [grid for grid in fields if grid is not None]
    return bool(grids) and all(isinstance(grid, list) and len(grid) == 1 for grid in grids)


def json_type(value: object) -> str:
    """Return the JSON type of a value in words, for messages."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "nothing"}
    return names.get(type(value), "a number")

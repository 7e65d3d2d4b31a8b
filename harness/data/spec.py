"""A dataset's spec taken apart: what it opens, and which of its tasks are selected after ``#``."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container
from pathlib import Path

from harness.core.errors import DataError, SpecError

_OPTION = re.compile("#(?=(?:n|seed|ids)=)")
"""Where a selection begins; any other ``#`` belongs to a path."""


def split_spec(spec: str) -> tuple[str, dict[str, str]]:
    """Return what a spec opens, and its selection: ``n``, ``seed`` and ``ids`` where they are given.

    Raises:
        SpecError: a selection is wrong or there twice.
    """
    source, *options = _OPTION.split(spec)
    selection: dict[str, str] = {}
    for option in options:
        key, _, value = option.partition("=")
        if key not in ("n", "seed", "ids") or not value or (key != "ids" and not re.fullmatch("[0-9]{1,18}", value)):
            raise SpecError(f"dataset {spec!r}: selection {option!r} is not one of n=NUMBER, seed=NUMBER, ids=FILE")
        if key in selection:
            raise SpecError(f"dataset {spec!r}: {key}= is given twice")
        selection[key] = value
    if selection.get("n") and not int(selection["n"]):
        raise SpecError(f"dataset {spec!r}: n=0 leaves no task")
    return source, selection


def read_ids(spec: str, name: str, known: Container[str]) -> list[str]:
    """The ids in a file, one a line; a line that is no id is taken for several with blanks between them.

    Args:
        known: the ids of the dataset.

    Raises:
        DataError: the file cannot be read, names no task, or one twice.
    """
    try:
        lines = Path(name).read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{spec}: cannot read the ids in {name}: {error}") from None
    wanted = [one for line in lines for one in ([line] if line in known else _words(line.strip(), known))]
    if not wanted:
        raise DataError(f"{spec}: {name} names no task")
    if len(set(wanted)) < len(wanted):
        twice = next(one for one, times in Counter(wanted).items() if times > 1)
        raise DataError(f"{spec}: {name} names task {twice} twice")
    return wanted


def _words(line: str, known: Container[str]) -> list[str]:
    words = line.split()
    if line and (line in known or any(word not in known for word in words)):
        return [line]
    return words

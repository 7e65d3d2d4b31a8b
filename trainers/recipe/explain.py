"""Turn pydantic's validation errors into one line, with a suggestion for each unknown key."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import get_args

from pydantic import BaseModel, ValidationError

from harness.core.errors import ConfigError

Location = tuple[int | str, ...]
"""Keys, and indices of lists, that lead to a value; empty for all values together."""
Problem = tuple[Location, str]
"""Where a value is invalid, and the description, which names the key too."""


class InvalidValuesError(ConfigError):
    """Values of a recipe or sweep are invalid.

    Attributes:
        where: what the message begins with, such as the file name.
        problems: the location and the description of each.
        hint: what the message ends with.
    """

    def __init__(self, where: str, problems: Sequence[Problem], hint: str = "") -> None:
        self.where, self.problems, self.hint = where, problems, hint
        super().__init__(f"{where}: {'; '.join(dict.fromkeys(text for _, text in problems))}{hint}")


def find_problems(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """Return location and description of every error that pydantic raised.

    Args:
        model: the class that was validated, for suggestions.
    """
    return [(e["loc"], _explain(model, e["loc"], e["type"], e["msg"], e["input"])) for e in error.errors()]


def _explain(model: type[BaseModel], location: Iterable[int | str], kind: str, message: str, value: object) -> str:
    names = [current for current in location if current not in ("str", "list[str]")]
    where = ".".join(map(str, names))
    if kind == "extra_forbidden":
        known = _fields(model, names[:-1])
        near = difflib.get_close_matches(str(names[-1]), known, 1, 0.5)
        suggestion = ".".join([*map(str, names[:-1]), *near])
        return f"unknown key {where!r}" + (
            f"; did you mean {suggestion!r}?" if near else f"; known: {', '.join(known)}"
        )
    if kind == "missing":
        return f"{where!r} is missing"
    reason = message.removeprefix("Value error, ")
    return f"{where}: {reason} (got {value!r})" if where else reason


def _fields(model: type[BaseModel], names: Sequence[int | str]) -> list[str]:
    """Return the field names of the part of a model to which the location of an error leads, for suggestions.

    Args:
        names: the location: keys, and indices of lists.
    """
    current: type[BaseModel] = model
    for name in names:
        if isinstance(name, str) and name in current.model_fields:
            current = next(
                (a for a in _leaves(current.model_fields[name].annotation) if issubclass(a, BaseModel)), current
            )
    return list(current.model_fields)


def _leaves(annotation: object) -> list[type]:
    """Return the classes in a type annotation: those of a union, an Annotated or a list."""
    arguments = get_args(annotation)
    if not arguments:
        return [annotation] if isinstance(annotation, type) else []
    return [leaf for argument in arguments for leaf in _leaves(argument)]

"""What is wrong with a recipe, in one line, with a suggestion for a key that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import get_args

from pydantic import BaseModel, ValidationError


def explain_errors(error: ValidationError, whole: type[BaseModel]) -> str:
    """One line for everything that is wrong with a ``whole``."""
    lines = [_explain(whole, item["loc"], item["type"], item["msg"], item["input"]) for item in error.errors()]
    return "; ".join(dict.fromkeys(lines))


def _explain(whole: type[BaseModel], loc: Iterable[int | str], kind: str, message: str, value: object) -> str:
    names = [part for part in loc if part not in ("str", "list[str]")]
    where = ".".join(map(str, names))
    if kind == "extra_forbidden":
        known = _fields(whole, names[:-1])
        near = difflib.get_close_matches(str(names[-1]), known, 1, 0.5)
        meant = ".".join([*map(str, names[:-1]), *near])
        return f"unknown key {where!r}" + (f"; did you mean {meant!r}?" if near else f"; known: {', '.join(known)}")
    if kind == "missing":
        return f"{where!r} is missing"
    said = message.removeprefix("Value error, ")
    return f"{where}: {said} (got {value!r})" if where else said


def _fields(whole: type[BaseModel], names: Sequence[int | str]) -> list[str]:
    """The field names of the part of a recipe (or of another whole) at a location."""
    part: type[BaseModel] = whole
    for name in names:
        if isinstance(name, str) and name in part.model_fields:
            part = next((a for a in _leaves(part.model_fields[name].annotation) if issubclass(a, BaseModel)), part)
    return list(part.model_fields)


def _leaves(annotation: object) -> list[type]:
    arguments = get_args(annotation)
    if not arguments:
        return [annotation] if isinstance(annotation, type) else []
    return [leaf for argument in arguments for leaf in _leaves(argument)]

"""Check the values of YAML files against JSON schemas, and compare the result with pydantic's."""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft7Validator, FormatChecker
from pydantic import BaseModel, ValidationError

BY_RULE = frozenset({"value_error", "finite_number"})
"""Kinds of pydantic errors that no JSON schema expresses: rules about several keys, and infinite numbers."""


class _Loader(yaml.SafeLoader):
    """Reads numbers such as 4e-3 as editors do (YAML 1.2); PyYAML takes them for texts, which pydantic converts."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+"), list("-+0123456789")
)


def read_as_editor(path: Path) -> Any:
    """Return the values of a YAML file as an editor that checks schemas sees them."""
    return plain(yaml.load(path.read_text(encoding="utf-8"), _Loader))


def plain(value: Any) -> Any:
    """Return values as JSON has them: dates and paths as texts, tuples as lists."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value.isoformat() if isinstance(value, datetime.date) else value


def schema_errors(schema: dict[str, Any], value: Any) -> list[str]:
    """Return what a JSON schema finds wrong with a value."""
    Draft7Validator.check_schema(schema)
    checker = Draft7Validator(schema, format_checker=FormatChecker())
    return [f"{error.json_path}: {error.message}" for error in checker.iter_errors(plain(value))]


def error_kinds(model: type[BaseModel], value: Any) -> set[str]:
    """Return the kinds of errors that pydantic finds in a value; empty for a valid one."""
    try:
        model.model_validate(value)
    except ValidationError as error:
        return {item["type"] for item in error.errors()}
    return set()


def parametrized(test: Any) -> list[tuple[Any, ...]]:
    """Return the cases of a parametrized test, to be checked in another way too."""
    return list(next(mark for mark in test.pytestmark if mark.name == "parametrize").args[1])

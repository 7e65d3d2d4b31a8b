"""The JSON schema of sweep files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from harness.cli.workflows.sweep.sweep_cells import ADAPTER_NAME, NAME_KEY, WEIGHT_KEY, check_keys
from harness.cli.workflows.sweep.sweep_file import ROW_KEYS, Sweep
from trainers.recipe.json_schema import Schema, file_schema, nested_recipe_schema

_SET_BY_SWEEP = frozenset(ROW_KEYS) - {"datasets"}
"""Keys that the recipe of a sweep never has. Whether it may have datasets depends on other keys of the sweep."""
_WITH_ANY_KEYS = r"^(datasets\.[0-9]+|chat_template_kwargs|lora\.(rank|alpha)_pattern)\."
"""Beginnings of dotted keys whose last part the schema does not check."""


def sweep_schema() -> dict[str, Any]:
    """Return the JSON schema of a sweep file."""
    recipe, definitions = nested_recipe_schema(_SET_BY_SWEEP)
    values = {WEIGHT_KEY: {"type": "number", "minimum": 0, "maximum": 1}}
    values |= dict(_varied_keys(recipe["properties"], definitions))
    axes = {key: {"type": "array", "items": value, "minItems": 1} for key, value in values.items()}
    name = {NAME_KEY: {"type": ["string", "null"], "pattern": f"^{ADAPTER_NAME.pattern}$"}}
    replaced = {
        "recipe": recipe,
        "axes": _of_keys(axes, {"type": "array", "minItems": 1}, Sweep.model_fields["axes"].description),
        "cells": {
            "type": "array",
            "items": {**_of_keys({**name, **values}, {}, None), "minProperties": 1},
            "description": Sweep.model_fields["cells"].description,
        },
    }
    title = "Sweep of arc-bench: adapters trained, served, benched and compared"
    return file_schema(Sweep, title, replaced, definitions)


def _varied_keys(
    properties: Mapping[str, Schema], definitions: Mapping[str, Schema], prefix: str = ""
) -> Iterator[tuple[str, Schema]]:
    """Yield the dotted recipe keys that may vary within a sweep, each with the schema of one value."""
    for name, part in properties.items():
        key = prefix + name
        try:
            check_keys("axes", [key], mixtures=False)
        except ValueError:
            continue
        yield key, part
        for choice in part.get("anyOf", [part]):
            nested = definitions.get(choice.get("$ref", "").rpartition("/")[2], {})
            yield from _varied_keys(nested.get("properties", {}), definitions, f"{key}.")


def _of_keys(properties: Mapping[str, Schema], of_any_key: Schema, description: str | None) -> Schema:
    """Return the schema of a mapping with these dotted keys.

    Args:
        of_any_key: the schema of values under keys that are not checked.
    """
    described = {} if description is None else {"description": description}
    return {
        "type": "object",
        "properties": dict(properties),
        "patternProperties": {_WITH_ANY_KEYS: of_any_key},
        "additionalProperties": False,
        **described,
    }

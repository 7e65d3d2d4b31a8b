"""The JSON schema of sweep files."""

from __future__ import annotations

from typing import Any

from harness.cli.workflows.sweep_file import ROW_KEYS, Sweep
from trainers.recipe.json_schema import file_schema, nested_recipe_schema

_SET_BY_SWEEP = frozenset(ROW_KEYS) - {"datasets"}
"""Keys that the recipe of a sweep never has. Whether it may have datasets depends on other keys of the sweep."""


def sweep_schema() -> dict[str, Any]:
    """Return the JSON schema of a sweep file."""
    recipe, definitions = nested_recipe_schema(_SET_BY_SWEEP)
    title = "Sweep of arc-bench: adapters trained, served, benched and compared"
    return file_schema(Sweep, title, {"recipe": recipe}, definitions)

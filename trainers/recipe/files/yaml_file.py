"""Read recipes from YAML files, with ``key=value`` overrides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path

from harness.core.errors import ConfigError
from trainers.recipe.files.extended_file import EXTENDS, ExtendedFile, naming_files, opened
from trainers.recipe.files.yaml_text import parse_yaml
from trainers.recipe.schema import Recipe, RecipeData, make_recipe


def load_recipe(
    file: Path | ExtendedFile | None, overrides: Sequence[str] = (), values: Mapping[str, object] | None = None
) -> Recipe:
    """Return the recipe of a YAML file; ``values`` replace its keys, and ``overrides`` replace both.

    Keys of both may be dotted (``lora.rank=32``, ``datasets.0.weight=0.3``).

    Args:
        file: its path, or what was read from it before; None for no file.
        overrides: ``key=value`` texts; values are parsed as YAML.

    Raises:
        ConfigError: unreadable YAML, an unknown key (with a suggestion) or an invalid value.
    """
    file = opened(file)
    with naming_files(file, [*(values or {}), *overrides]):
        return make_recipe(load_data(file, overrides, values), str(file.child.path) if file else "recipe")


def load_data(
    file: ExtendedFile | None, overrides: Sequence[str] = (), values: Mapping[str, object] | None = None
) -> RecipeData:
    """Return the plain values of a file before validation; arguments as ``load_recipe``.

    The values of a file that it extends are among them (``trainers.recipe.files.extended_file``).

    Raises:
        ConfigError: an override that cannot be applied.
    """
    data: RecipeData = {} if file is None else deepcopy(file.merged())
    for key, value in (values or {}).items():
        _assign(data, key, deepcopy(value))
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"override {override!r}: expected key=value, such as learning_rate=1e-4")
        if key.strip() == EXTENDS:
            raise ConfigError(f"override {override!r}: {EXTENDS} is read before overrides; write it into the file")
        _assign(data, key.strip(), parse_yaml(text, f"override {override!r}"))
    return data


def _assign(data: RecipeData, key: str, value: object) -> None:
    """Set a dotted key in place. Missing mappings on the path are created; a number is an index into a list."""
    *parents, last = key.split(".")
    node: object = data
    for depth, part in enumerate([*parents, last]):
        if isinstance(node, list):
            index: str | int = _index(node, part, key)
        elif isinstance(node, dict):
            index = part
        else:
            raise ConfigError(f"override {key!r}: {'.'.join(parents[:depth])!r} holds a single value, not keys")
        if depth == len(parents):
            node[index] = value  # type: ignore[index]
            return
        if isinstance(node, dict) and node.get(part) is None:
            node[part] = {}
        node = node[index]  # type: ignore[index]


def _index(items: Sequence[object], part: str, key: str) -> int:
    if not part.isdecimal() or len(part) > 9 or int(part) >= len(items):
        raise ConfigError(f"override {key!r}: {part[:80]!r} is not one of the {len(items)} positions, counted from 0")
    return int(part)

"""Read recipes from YAML files, with ``key=value`` overrides."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, cast

from harness.core.errors import ConfigError
from trainers.recipe.schema import Recipe, RecipeData, make_recipe

_MERGE = "tag:yaml.org,2002:merge"
"""Tag of the key ``<<``, which may occur several times in a mapping."""


def load_recipe(path: Path | None, overrides: Sequence[str] = (), values: Mapping[str, object] | None = None) -> Recipe:
    """Return the recipe of a YAML file; ``values`` replace its keys, and ``overrides`` replace both.

    Keys of both may be dotted (``lora.rank=32``, ``datasets.0.weight=0.3``).

    Args:
        path: None for no file.
        overrides: ``key=value`` texts; values are parsed as YAML.

    Raises:
        ConfigError: unreadable YAML, an unknown key (with a suggestion) or an invalid value.
    """
    return make_recipe(load_data(path, overrides, values), str(path) if path else "recipe")


def load_data(
    path: Path | None, overrides: Sequence[str] = (), values: Mapping[str, object] | None = None
) -> RecipeData:
    """Return the plain values of a recipe before validation; arguments as ``load_recipe``.

    Raises:
        ConfigError: unreadable YAML, or an override that cannot be applied.
    """
    data: RecipeData = {} if path is None else _read_yaml(path)
    for key, value in (values or {}).items():
        _assign(data, key, deepcopy(value))
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"override {override!r}: expected key=value, such as learning_rate=1e-4")
        _assign(data, key.strip(), _parse_yaml(text, f"override {override!r}"))
    return data


def _read_yaml(path: Path) -> RecipeData:
    try:
        data = _parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: expected keys and values, got {type(data).__name__}")
    return {str(key): value for key, value in data.items()}


def _parse_yaml(text: str, where: str) -> object:
    import yaml

    class Loader(yaml.SafeLoader):
        """SafeLoader that raises an error for a repeated key; yaml's own loaders silently keep the last one."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
            keys = set()
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                    continue
                if key.value in keys:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} occurs twice", key.start_mark)
                keys.add(key.value)
            return super().construct_mapping(node, deep)

    try:
        return cast(object, Loader(text).get_single_data())
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: an invalid number or date
        raise ConfigError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None


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

"""Parse YAML in which no key may be repeated."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, cast

from harness.core.errors import ConfigError

_MERGE = "tag:yaml.org,2002:merge"
"""Tag of the key ``<<``, which may occur several times in a mapping."""


def parse_yaml(text: str, where: str) -> object:
    """Return the values of a YAML text.

    Args:
        where: prefix of error messages, such as the file name.

    Raises:
        ConfigError: the text is not valid YAML, or repeats a key.
    """
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

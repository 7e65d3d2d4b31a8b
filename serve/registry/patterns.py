"""PEFT's patterns of module names, out of files that others wrote: matched as PEFT does, in bounded time."""

from __future__ import annotations

import re

from harness.core.errors import AdapterError

_LONGEST = 200
_REPEATED_GROUP = re.compile(r"\)[*+?{]")
_REPEAT = re.compile(r"[*+{]")


def check_pattern(pattern: str) -> None:
    """Refuse what is no regular expression, or one that may take for ever on a module's name.

    Time grows as length ** repeats, and exponentially where a group is repeated; PEFT writes plain names.

    Raises:
        AdapterError: and why.
    """
    if len(pattern) > _LONGEST or len(_REPEAT.findall(pattern)) > 2 or _REPEATED_GROUP.search(pattern):
        raise AdapterError(
            f"{pattern[:80]!r} is too involved: at most {_LONGEST} characters and two repeats, none of a group"
        )
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise AdapterError(f"{pattern!r} is no pattern: {error}") from error


def matches(pattern: str, module: str) -> bool:
    """PEFT's rule: a pattern matches the end of a module's name from a dot on."""
    return re.match(rf"(.*\.)?({pattern})$", module) is not None

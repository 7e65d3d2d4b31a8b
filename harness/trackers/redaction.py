"""Remove secrets from what is reported: a tracker may be read by more people than a run folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "(hidden)"
_SECRET_KEY = re.compile(
    r"api[-_ ]?key|authorization|password|passwd|secret|credential|bearer|cookie|(?:^|[-_.])(?:auth|token|key)$", re.I
)
"""Names of values that are secrets; ``max_tokens`` and ``stop_token_ids`` are none."""
_USER = re.compile(r"(?<=://)[^/@\s]+@")
_QUERY = re.compile(r"(\w+://[^\s?#]+)[?#]\S*")
"""User names and passwords, and queries, of addresses."""
_BEARER = re.compile(r"\b(bearer|basic) +[\w.~+/=-]+", re.I)


def without_secrets(value: Any) -> Any:
    """Return plain JSON values without values of secret names, and addresses without users and queries."""
    if isinstance(value, Mapping):
        return {
            key: HIDDEN if item is not None and _SECRET_KEY.search(str(key)) else without_secrets(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [without_secrets(item) for item in value]
    if not isinstance(value, str):
        return value
    return _BEARER.sub(HIDDEN, _QUERY.sub(r"\1", _USER.sub("", value)))

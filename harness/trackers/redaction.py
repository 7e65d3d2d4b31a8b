"""Remove secrets from what is reported: a tracker may be read by more people than a run folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from harness.runs.schemas.tracker_run import TrackerRun

HIDDEN = "(hidden)"
_SECRET_KEY = re.compile(
    r"api[-_ ]?key|authorization|password|passwd|secret|credential|bearer|cookie|(?:^|[-_.])(?:auth|token|key)$", re.I
)
"""Names of values that are secrets; ``max_tokens`` and ``stop_token_ids`` are none."""
_USER = re.compile(r"(?<=://)[^/@\s]+@")
_QUERY = re.compile(r"(\w+://[^\s?#]+)\?[^\s#]*")
_FRAGMENT = re.compile(r"(\w+://[^\s#]+)#\S*(?:token|key|secret|password)=\S*", re.I)
"""User names and passwords, queries, and fragments with secrets, of addresses."""
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
    return _BEARER.sub(HIDDEN, _FRAGMENT.sub(r"\1", _QUERY.sub(r"\1", _USER.sub("", value))))


def run_without_secrets(run: TrackerRun) -> TrackerRun:
    """Return a tracker's run with an address that may be shown: a tracking server's may contain a password."""
    return run.model_copy(update={"url": without_secrets(run.url)})

"""The file live.json of an adapter's name: which version is live, and which were before."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from harness.core.errors import AdapterError
from harness.core.files import atomic_writer, sync_to_disk
from serve.registry.adapter_files import read_object
from serve.registry.adapter_version import VERSION

LIVE_FILE = "live.json"
_HISTORY = 20
"""How many previously live versions the file keeps."""


@dataclass(frozen=True, slots=True)
class LiveState:
    """The live version of a name (None for none), and the versions that were live before, newest first."""

    version: str | None
    history: tuple[str, ...]

    def followed_by(self, version: str | None) -> LiveState:
        """Return the state after another version (or none) is made live; the present one heads the history."""
        history = [v for v in (self.version, *self.history) if v and v != version]
        return LiveState(version, tuple(dict.fromkeys(history))[:_HISTORY])


def read_live(path: Path) -> LiveState:
    """Return the content of live.json; no version and no history if there is no such file.

    Raises:
        AdapterError: it is damaged.
    """
    if not path.is_file():
        return LiveState(None, ())
    raw = read_object(path)
    history = raw.get("history")
    words = [raw.get("version", 0), *(history if isinstance(history, list) else [0])]
    if not all(w is None or (isinstance(w, str) and VERSION.fullmatch(w)) for w in words):
        raise AdapterError(f"{path}: damaged; expected a version and a history of versions")
    return LiveState(words[0], tuple(w for w in words[1:] if w))


def write_live(path: Path, live: LiveState) -> None:
    """Replace live.json in one step."""
    with atomic_writer(path, draft=path.with_name(f".live-{os.getpid()}.json")) as file:
        file.write(json.dumps({"version": live.version, "history": list(live.history)}).encode() + b"\n")
    sync_to_disk(path.parent)

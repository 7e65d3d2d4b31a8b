"""Detect incomplete and changed folders by a list of file digests, which is written last."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from trainers.store.manifest import write_json

DIGESTS_FILE = "files.json"
"""File with ``{file name: SHA-256 in hex}`` of the folder's other files."""


def write_digests(folder: Path) -> None:
    """Write the digests of a folder's files, which marks the folder as complete."""
    write_json(folder / DIGESTS_FILE, {path.name: _digest(path) for path in sorted(folder.iterdir()) if path.is_file()})


def find_damage(folder: Path) -> str | None:
    """Return how a folder differs from its digests, naming the file; None if nothing differs. Reads every byte."""
    try:
        digests: object = json.loads((folder / DIGESTS_FILE).read_bytes())
    except FileNotFoundError:
        return f"it was cut short: {DIGESTS_FILE}, which is written last, is missing"
    except (OSError, ValueError) as error:
        return f"{DIGESTS_FILE} is damaged: {error}"
    if not isinstance(digests, dict):
        return f"{DIGESTS_FILE} is damaged"
    for name, digest in digests.items():
        try:
            if _digest(folder / name) != digest:
                return f"{name} is damaged: it has changed since it was written"
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name} cannot be read: {error.strerror}"
    return None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

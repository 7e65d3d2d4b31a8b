"""A folder that was written whole and has not changed since: a list of its files with their digests, written last."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from trainers.store.manifest import write_json

DIGESTS_FILE = "files.json"
"""{file name: SHA-256 in hex} of a sealed folder."""


def write_digests(folder: Path) -> None:
    """List the files of a folder with their digests: from now on it is whole."""
    write_json(folder / DIGESTS_FILE, {path.name: _digest(path) for path in sorted(folder.iterdir()) if path.is_file()})


def find_damage(folder: Path) -> str | None:
    """Why a folder is not what was sealed, naming the file; None where it is. Reads every byte."""
    try:
        sealed: object = json.loads((folder / DIGESTS_FILE).read_bytes())
    except FileNotFoundError:
        return f"it was cut short: {DIGESTS_FILE}, which is written last, is missing"
    except (OSError, ValueError) as error:
        return f"{DIGESTS_FILE} is damaged: {error}"
    if not isinstance(sealed, dict):
        return f"{DIGESTS_FILE} is damaged"
    for name, digest in sealed.items():
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

"""Names of the files in an adapter folder, and reading the JSON files that others wrote, with a bounded size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness.core.errors import AdapterError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
MANIFEST = "manifest.json"
_MAX_JSON = 1 << 20


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file of at most 1 MiB.

    Raises:
        AdapterError: the file is missing, larger, not JSON, or holds something other than an object.
    """
    try:
        if path.stat().st_size > _MAX_JSON:
            raise AdapterError(f"{path}: {path.stat().st_size} bytes is too large for a configuration")
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise AdapterError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise AdapterError(f"{path}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise AdapterError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def read_config(folder: Path) -> dict[str, Any]:
    """Return the adapter_config.json of an adapter folder.

    Raises:
        AdapterError: the folder or the file is missing, or the file holds no JSON object.
    """
    if not folder.is_dir():
        raise AdapterError(f"{folder}: no such adapter folder")
    return read_object(folder / CONFIG)

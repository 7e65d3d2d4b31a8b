"""The files of an adapter folder: their names, reading JSON that others wrote, and copying them."""

from __future__ import annotations

import json
import shutil
import stat
from pathlib import Path
from typing import Any

from harness.core.errors import AdapterError
from harness.core.files import sync_to_disk

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
        json.dumps(value, ensure_ascii=False).encode()  # a lone surrogate cannot be sent to clients
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


def copy_adapter(source: Path, draft: Path) -> None:
    """Copy an adapter's files into ``draft``, read-only and written to disk.

    A pickle is not copied: an empty file of its name lets the validation report it.

    Raises:
        AdapterError: ``source`` is no folder, a file is not a regular one, or the manifest is not JSON.
    """
    if not source.is_dir():
        raise AdapterError(f"{source}: no such adapter folder")
    for name in (CONFIG, WEIGHTS, "adapter_model.bin", MANIFEST):
        path = source / name
        if not path.exists():
            continue
        if not stat.S_ISREG(path.stat().st_mode):
            raise AdapterError(f"{path}: not a plain file")
        if name == "adapter_model.bin":
            (draft / name).touch()
            continue
        shutil.copyfile(path, draft / name)
        (draft / name).chmod(0o444 & stat.S_IMODE((draft / name).stat().st_mode))
        sync_to_disk(draft / name)
    if (draft / MANIFEST).exists():
        read_object(draft / MANIFEST)
    if (draft / WEIGHTS).exists():
        (draft / "adapter_model.bin").unlink(missing_ok=True)

"""SHA-256 digests that identify texts, models and adapters in manifests and registries; they must never change."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection
from pathlib import Path

from harness.core.errors import AdapterError

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
_BLOCK = 1 << 22


def text_digest(text: str) -> str:
    """Return the first 16 hex digits of the SHA-256 of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def content_hash(folder: Path) -> str:
    """Return a SHA-256 (64 hex digits) over an adapter's adapter_config.json and adapter_model.safetensors.

    Each file's bytes are preceded by its length (8 bytes, little-endian).

    Raises:
        AdapterError: one of the files cannot be read.
    """
    digest = hashlib.sha256()
    for name in ADAPTER_FILES:
        try:
            with (folder / name).open("rb") as file:
                digest.update(os.fstat(file.fileno()).st_size.to_bytes(8, "little"))
                while block := file.read(_BLOCK):
                    digest.update(block)
        except OSError as error:
            raise AdapterError(f"{folder / name}: cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def weights_digest(folder: Path, names: Collection[str] | None = None) -> str:
    """Return the SHA-256 in hex of a folder's ``*.safetensors`` files, read one after the other in order of name.

    Reads every byte: about 10 s for 15 GB.

    Args:
        names: the file names to include; None for all.
    """
    sha = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        if names is None or path.name in names:
            with path.open("rb") as file:
                while block := file.read(_BLOCK):
                    sha.update(block)
    return sha.hexdigest()


def model_digest(folder: Path, names: Collection[str] | None = None) -> str:
    """Return 16 hex digits that identify a model folder by its config.json and weights.

    They are the first digits of the SHA-256 over config.json and the hex digest of ``weights_digest(folder, names)``.
    """
    config = (folder / "config.json").read_bytes()
    return hashlib.sha256(config + weights_digest(folder, names).encode()).hexdigest()[:16]

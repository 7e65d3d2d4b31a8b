"""Adapter names and versions: how they are written, what they hold, and that it has not changed."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core.errors import AdapterError
from serve.registry.adapter_files import CONFIG, MANIFEST, WEIGHTS, read_object
from serve.registry.base_model import BaseModel
from serve.registry.validation import AdapterFacts, validate_adapter

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
VERSION = re.compile(r"[0-9a-f]{12}")


class UnknownAdapterError(AdapterError):
    """No adapter or version of that name."""


class AdapterInUseError(AdapterError):
    """Refused because the adapter is live, loaded, or there is no room for it."""


@dataclass(frozen=True, slots=True)
class AdapterRef:
    """``NAME`` or ``NAME@VERSION`` as a user writes it."""

    name: str
    version: str | None

    @staticmethod
    def parse(text: str) -> AdapterRef:
        """Split at the @.

        Raises:
            UnknownAdapterError: no such name can exist (paths, ``..``, odd characters).
        """
        name, at, version = text.partition("@")
        if not NAME.fullmatch(name) or ".." in name or (at and not VERSION.fullmatch(version)):
            raise UnknownAdapterError(
                f"{text[:80]!r} names no adapter: expected NAME (letters, digits, '.', '_', '-', at most 64) "
                "or NAME@VERSION (12 hex digits)"
            )
        return AdapterRef(name, version if at else None)

    def __str__(self) -> str:
        return f"{self.name}@{self.version}" if self.version else self.name


@dataclass(frozen=True, slots=True)
class AdapterVersion:
    """One registered version: where it is, its full content hash, and when it was added (Unix seconds)."""

    name: str
    version: str
    folder: Path
    added: float

    @property
    def id(self) -> str:
        """``NAME@VERSION``."""
        return f"{self.name}@{self.version}"

    @property
    def manifest(self) -> dict[str, Any] | None:
        """What the trainer wrote beside the weights (prompt, encoder, recipe), if anything."""
        path = self.folder / MANIFEST
        return read_object(path) if path.is_file() else None

    def stamp(self) -> list[tuple[int, int, int] | None]:
        """Inode, size and time of writing (ns) of both files: other numbers where one was replaced or written to."""
        found: list[tuple[int, int, int] | None] = []
        for name in (CONFIG, WEIGHTS):
            try:
                info = (self.folder / name).stat()
            except OSError:
                found.append(None)
            else:
                found.append((info.st_ino, info.st_size, info.st_mtime_ns))
        return found

    def verify(self, base: BaseModel | None = None, max_rank: int | None = None) -> VerifiedAdapter:
        """Check that the files are plain, unchanged since they were added, and fit ``base``; reads every byte.

        Raises:
            AdapterError: they are not.
        """
        for path in (self.folder.parent, self.folder, self.folder / CONFIG, self.folder / WEIGHTS):
            if path.is_symlink():
                raise AdapterError(f"{path}: is a link; a registered version holds plain files only")
        digest = content_hash(self.folder)
        if not digest.startswith(self.version):
            raise AdapterError(f"{self.folder}: changed since it was added; add the changed adapter as a new version")
        return VerifiedAdapter(validate_adapter(self.folder, base, max_rank), digest, self.manifest)


@dataclass(frozen=True, slots=True)
class VerifiedAdapter:
    """What a checked version is: its facts, the SHA-256 of its content (64 hex digits), and its trainer's manifest."""

    facts: AdapterFacts
    hash: str
    manifest: dict[str, Any] | None


def content_hash(folder: Path) -> str:
    """SHA-256 (64 hex digits) over adapter_config.json and adapter_model.safetensors, each preceded by its length.

    Raises:
        AdapterError: one of them is missing.
    """
    digest = hashlib.sha256()
    for name in (CONFIG, WEIGHTS):
        try:
            with (folder / name).open("rb") as file:
                digest.update(os.fstat(file.fileno()).st_size.to_bytes(8, "little"))
                while block := file.read(1 << 20):
                    digest.update(block)
        except OSError as error:
            raise AdapterError(f"{folder / name}: cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def check_trained(folder: Path) -> None:
    """Check that both adapter files are those whose digests the trainer left in the folder's manifest, if it did.

    Raises:
        AdapterError: one has changed since.
    """
    said = read_object(folder / MANIFEST) if (folder / MANIFEST).is_file() else {}
    for name, digest in ((CONFIG, said.get("config_sha256")), (WEIGHTS, said.get("weights_sha256"))):
        with (folder / name).open("rb") as file:
            if digest is not None and digest != hashlib.file_digest(file, "sha256").hexdigest():
                raise AdapterError(
                    f"{folder / name}: damaged or changed since training (its digest is not the one in {MANIFEST}); "
                    f"train it again, or remove {MANIFEST} where the change is meant"
                )

"""Adapter names and versions: how they are written, hashed, and checked for changes."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core.digests import content_hash
from harness.core.errors import AdapterError
from serve.registry.adapter_files import CONFIG, MANIFEST, WEIGHTS, read_object
from serve.registry.base_model import BaseModel
from serve.registry.validation.adapter import AdapterFacts, validate_adapter

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
VERSION = re.compile(r"[0-9a-f]{12}")


class UnknownAdapterError(AdapterError):
    """There is no adapter or version of that name."""


class AdapterInUseError(AdapterError):
    """The adapter is live or loaded, or the server has no room for it."""


@dataclass(frozen=True, slots=True)
class AdapterRef:
    """A reference to an adapter as users write it: ``NAME`` or ``NAME@VERSION``."""

    name: str
    version: str | None

    @staticmethod
    def parse(text: str) -> AdapterRef:
        """Parse a reference.

        Raises:
            UnknownAdapterError: no adapter can have this name (a path, ``..``, other characters than those allowed).
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
    """One registered version.

    Attributes:
        version: the first 12 hex digits of ``content_hash(folder)``.
        added: when it was added, in Unix seconds.
    """

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
        """The trainer's manifest (prompt, encoder, recipe); None if the folder has none."""
        path = self.folder / MANIFEST
        return read_object(path) if path.is_file() else None

    def file_stamp(self) -> list[tuple[int, int, int] | None]:
        """Return inode, size and modification time (ns) of configuration and weights; None in place of a missing file.

        Two stamps differ if a file was replaced or written to in between.
        """
        stamps: list[tuple[int, int, int] | None] = []
        for name in (CONFIG, WEIGHTS):
            try:
                info = (self.folder / name).stat()
            except OSError:
                stamps.append(None)
            else:
                stamps.append((info.st_ino, info.st_size, info.st_mtime_ns))
        return stamps

    def verify(self, base: BaseModel | None = None, max_rank: int | None = None) -> VerifiedAdapter:
        """Check that the files are regular, unchanged since they were added, and fit ``base``. Reads every byte.

        Args:
            base: as in ``validate_adapter``.
            max_rank: likewise.

        Raises:
            AdapterError: one of the checks fails.
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
    """The result of ``AdapterVersion.verify``.

    Attributes:
        hash: ``content_hash`` of its folder.
        manifest: the trainer's manifest, if the folder has one.
    """

    facts: AdapterFacts
    hash: str
    manifest: dict[str, Any] | None


def check_unchanged_since_training(folder: Path) -> None:
    """Compare both adapter files with the digests in the folder's manifest, if it has one with digests.

    Raises:
        AdapterError: a file has changed since training.
    """
    manifest = read_object(folder / MANIFEST) if (folder / MANIFEST).is_file() else {}
    for name, digest in ((CONFIG, manifest.get("config_sha256")), (WEIGHTS, manifest.get("weights_sha256"))):
        with (folder / name).open("rb") as file:
            if digest is not None and digest != hashlib.file_digest(file, "sha256").hexdigest():
                raise AdapterError(
                    f"{folder / name}: damaged or changed since training (its digest is not the one in {MANIFEST}); "
                    f"train it again, or remove {MANIFEST} if the change is intended"
                )

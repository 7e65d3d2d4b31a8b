"""The adapter registry: a folder of immutable adapter versions, each named by its content.

    DIR/NAME/VERSION/    adapter_config.json, adapter_model.safetensors, manifest.json (optional, the trainer's)
    DIR/NAME/live.json   {"version": VERSION or null, "history": [versions that were live before, newest first]}

VERSION is the first 12 hex digits of a SHA-256 over the two adapter files: the same weights have the same version on
every machine, and a changed file is detected. Every file is written under a temporary name and then renamed, under
one lock, so that a reader never sees a partial one.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from harness.core.errors import AdapterError
from harness.core.files import sync_to_disk
from serve.registry.adapter_version import (
    NAME,
    VERSION,
    AdapterInUseError,
    AdapterRef,
    AdapterVersion,
    UnknownAdapterError,
)
from serve.registry.base_model import BaseModel
from serve.registry.draft import install_draft, validated_draft
from serve.registry.leases import file_lock, leased_versions
from serve.registry.live_file import LIVE_FILE, LiveState, read_live, write_live
from serve.registry.prompt_record import missing_prompt_warnings


class Registry:
    """The registry in the folder ``root``, which the first addition creates."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def add(
        self,
        name: str,
        source: Path,
        base: BaseModel | None = None,
        *,
        accept: bool = False,
        prompt_settings: Mapping[str, str] | None = None,
        warn: Callable[[str], None] = lambda warning: None,
    ) -> AdapterVersion:
        """Validate the adapter in ``source`` and copy it into the registry, as the newest version of ``name``.

        Content that is registered already gets no second copy; only its date and manifest are updated.

        Args:
            name: an adapter name without a version.
            base: the model that it must fit, as in ``validate_adapter``.
            accept: accept the adapter for ``base`` even if it names another base.
            prompt_settings: ``prompt`` and ``encoder`` from the user; they take precedence over the manifest's.
            warn: called with each warning about the adapter.

        Raises:
            AdapterError: the adapter cannot be served, or the name is not allowed.
        """
        ref = AdapterRef.parse(name)
        if ref.version:
            raise AdapterError(f"{name}: give a plain name; the version follows from the content")
        with self._lock():
            home = self.root / ref.name
            home.mkdir(parents=True, exist_ok=True)
            try:
                with validated_draft(source, home, base, accept, prompt_settings or {}) as (draft, facts):
                    folder = install_draft(draft, ref.name, home)
                    self._make_newest(ref.name, folder)
                    sync_to_disk(home)
                for warning in (*facts.warnings, *missing_prompt_warnings(folder)):
                    warn(warning)
                return _version(ref.name, folder)
            finally:
                _remove_if_empty(home)

    def _make_newest(self, name: str, home: Path) -> None:
        """Set a version's date to now, or later than all others of its name if the clock was set back."""
        others = [v.folder.stat().st_mtime_ns for v in self.versions(name) if v.folder != home]
        added = max([time.time_ns(), *(one + 1_000_000 for one in others)])
        os.utime(home, ns=(added, added))

    def names(self) -> list[str]:
        """Return the names that have at least one version, sorted."""
        if not self.root.is_dir():
            return []
        return sorted(p.name for p in self.root.iterdir() if NAME.fullmatch(p.name) and self.versions(p.name))

    def versions(self, name: str) -> list[AdapterVersion]:
        """Return the versions of a name, oldest first; empty for an unknown name."""
        home = self.root / AdapterRef.parse(name).name
        versions = []
        with suppress(FileNotFoundError, NotADirectoryError):
            entries = [] if home.is_symlink() else os.listdir(home)
            for path in [home / entry for entry in entries if VERSION.fullmatch(entry)]:
                with suppress(FileNotFoundError):  # another process has removed it meanwhile
                    if stat.S_ISDIR(path.lstat().st_mode):
                        versions.append(_version(name, path))
        return sorted(versions, key=lambda v: (v.added, v.version))

    def find(self, text: str) -> AdapterVersion:
        """Return the version ``NAME@VERSION``, or the newest version of ``NAME``.

        Raises:
            UnknownAdapterError: the registry has no such version; the message lists those that it has.
        """
        ref = AdapterRef.parse(text)
        versions = self.versions(ref.name)
        for version in reversed(versions):
            if ref.version in (None, version.version):
                return version
        known = [v.id for v in versions] or self.names()
        raise UnknownAdapterError(f"{text}: not in the registry; it holds {', '.join(known) or 'nothing yet'}")

    def live(self, name: str) -> LiveState:
        """Return the live version of a name and its history.

        Raises:
            AdapterError: live.json is damaged.
        """
        return read_live(self._live_file(name))

    def set_live(self, name: str, version: str | None) -> LiveState:
        """Make ``version`` (or no version) the live one of ``name``; the previous one heads the history."""
        with self._lock():
            before = self.live(name)
            if before.version == version:
                return before
            after = before.followed_by(version)
            write_live(self._live_file(name), after)
            return after

    def history(self, name: str) -> list[AdapterVersion]:
        """Return the versions of a name that were live before the current one and still exist, newest first."""
        existing = {v.version: v for v in self.versions(name)}
        return [existing[version] for version in self.live(name).history if version in existing]

    def previous(self, name: str) -> AdapterVersion:
        """Return the version that a rollback makes live.

        Raises:
            UnknownAdapterError: no earlier live version exists.
        """
        for version in self.history(name):
            return version
        raise UnknownAdapterError(f"{name}: no earlier version to go back to")

    def remove(self, text: str) -> list[str]:
        """Delete ``NAME@VERSION``, or all versions of ``NAME``, and return their ids.

        Raises:
            UnknownAdapterError: the registry has no such version or name.
            AdapterInUseError: the version is live, or a running server uses one of them (it would fail without the
                files).
        """
        ref = AdapterRef.parse(text)
        with self._lock():
            doomed = [self.find(text)] if ref.version else self.versions(ref.name)
            if not doomed:
                self.find(text)
            leased = leased_versions(self.root)
            for version in doomed:
                if version.id in leased:
                    raise AdapterInUseError(
                        f"{version.id}: the server at {leased[version.id]} knows it; unload it there first"
                    )
                if ref.version and self.live(ref.name).version == version.version:
                    raise AdapterInUseError(
                        f"{version.id}: is live; promote another version or remove all of {ref.name}"
                    )
            for version in doomed:
                self._delete(version)
            if not ref.version:
                self._live_file(ref.name).unlink(missing_ok=True)
            _remove_if_empty(self.root / ref.name)
            return [v.id for v in doomed]

    def gc(self, keep: int = 1) -> list[str]:
        """Delete all versions except the ``keep`` newest of each name, and return the deleted ids.

        Versions that are live, that a rollback would make live, or that a running server uses are never deleted.
        Leftovers of interrupted additions and removals are deleted too.
        """
        removed: list[str] = []
        with self._lock():
            for leftover in [*self.root.glob("*/.draft-*"), *self.root.glob("*/.removed-*")]:
                shutil.rmtree(leftover)  # of a killed process: no other addition or removal runs under this lock
            for draft in self.root.glob("*/.live-*.json"):
                draft.unlink()
            leased = leased_versions(self.root)
            for name in self.names():
                needed = {self.live(name).version, *(v.version for v in self.history(name)[:1])}
                spare = [v for v in self.versions(name) if v.version not in needed]
                for version in spare[: max(0, len(spare) - keep)]:
                    if version.id not in leased:
                        self._delete(version)
                        removed.append(version.id)
        return removed

    def _delete(self, version: AdapterVersion) -> None:
        """Rename a version's folder, so that it disappears at once, and then delete it."""
        trash = Path(tempfile.mkdtemp(prefix=".removed-", dir=version.folder.parent))
        os.replace(version.folder, trash / version.version)
        shutil.rmtree(trash)

    def _live_file(self, name: str) -> Path:
        """Return the path of a name's live.json."""
        return self.root / name / LIVE_FILE

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Hold the registry's lock while the block runs."""
        self.root.mkdir(parents=True, exist_ok=True)
        with file_lock(self.root / ".lock"):
            yield


def _version(name: str, folder: Path) -> AdapterVersion:
    return AdapterVersion(name, folder.name, folder, folder.stat().st_mtime)


def _remove_if_empty(folder: Path) -> None:
    """Remove the folder of a name without versions."""
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()

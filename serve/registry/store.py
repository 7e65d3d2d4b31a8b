"""The adapter registry: a folder of immutable adapter versions that are named by their content.

    DIR/NAME/VERSION/    adapter_config.json, adapter_model.safetensors, manifest.json (optional, the trainer's)
    DIR/NAME/live.json   {"version": VERSION or null, "history": [older versions that were live, newest first]}

VERSION is the first 12 hex digits of a SHA-256 over the two adapter files, so that the same weights are the same
version anywhere, and a changed file is noticed. Everything is written beside its place and renamed, under one lock.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from harness.core.errors import AdapterError
from serve.registry.adapter_files import CONFIG, MANIFEST, WEIGHTS, read_object
from serve.registry.adapter_version import (
    NAME,
    VERSION,
    AdapterInUseError,
    AdapterRef,
    AdapterVersion,
    UnknownAdapterError,
    check_trained,
    content_hash,
)
from serve.registry.base_match import ACCEPTED, accept_base
from serve.registry.base_model import BaseModel
from serve.registry.leases import file_lock, leased_versions
from serve.registry.prompt_record import complete_manifest, missing_prompt_warnings
from serve.registry.validation import validate_adapter

_HISTORY = 20


@dataclass(frozen=True, slots=True)
class Live:
    """Which version of a name is live, and which were before (newest first)."""

    version: str | None
    history: tuple[str, ...]


class Registry:
    """The registry in ``root``, which is made at the first addition."""

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
        """Validate the adapter in ``source`` and copy it in; adding the same content again changes nothing.

        Args:
            accept: the user insists that ``base`` is the right one, whatever the adapter says.
            prompt_settings: ``prompt`` and ``encoder`` that a user gives; they stand over those of a manifest.
            warn: called with what the user should know of the adapter.

        Raises:
            AdapterError: the adapter cannot be served, or the name is odd.
        """
        ref = AdapterRef.parse(name)
        if ref.version:
            raise AdapterError(f"{name}: give a plain name; the version follows from the content")
        with self._lock():
            home = self.root / ref.name
            home.mkdir(parents=True, exist_ok=True)
            draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=home))
            try:
                _copy_in(source, draft)
                if accept and base is not None:
                    accept_base(draft, base)
                complete_manifest(source, draft, prompt_settings or {})
                facts = validate_adapter(draft, base)
                check_trained(draft)
                version = self._settle(ref.name, draft)
                for warning in (*facts.warnings, *missing_prompt_warnings(version.folder)):
                    warn(warning)
                return version
            except AdapterError as error:
                raise type(error)(str(error).replace(str(draft), str(source))) from error
            finally:
                shutil.rmtree(draft, ignore_errors=True)
                _remove_if_empty(home)

    def _settle(self, name: str, draft: Path) -> AdapterVersion:
        version = content_hash(draft)[:12]
        home = self.root / name / version
        if home.exists():
            if content_hash(home)[:12] != version:
                raise AdapterError(f"{name}@{version}: the registered copy is damaged; remove it and add it again")
            for beside in (MANIFEST, ACCEPTED):  # what is said beside the weights is not in their hash
                if (draft / beside).exists():
                    os.replace(draft / beside, home / beside)
        else:
            draft.chmod(stat.S_IMODE(home.parent.stat().st_mode))  # mkdtemp's are the owner's alone
            os.replace(draft, home)
        self._make_newest(name, home)
        _sync(home.parent)
        return _version(name, home)

    def _make_newest(self, name: str, home: Path) -> None:
        """Date a version now, or after all others of its name where the clock was set back since they were added."""
        others = [v.folder.stat().st_mtime_ns for v in self.versions(name) if v.folder != home]
        added = max([time.time_ns(), *(one + 1_000_000 for one in others)])
        os.utime(home, ns=(added, added))

    def names(self) -> list[str]:
        """The names that have at least one version, sorted."""
        if not self.root.is_dir():
            return []
        return sorted(p.name for p in self.root.iterdir() if NAME.fullmatch(p.name) and self.versions(p.name))

    def versions(self, name: str) -> list[AdapterVersion]:
        """The versions of a name, oldest first; none where it is unknown."""
        home = self.root / AdapterRef.parse(name).name
        found = []
        with suppress(FileNotFoundError, NotADirectoryError):
            for path in [] if home.is_symlink() else [home / own for own in os.listdir(home) if VERSION.fullmatch(own)]:
                with suppress(FileNotFoundError):  # removed by another process since
                    if stat.S_ISDIR(path.lstat().st_mode):
                        found.append(_version(name, path))
        return sorted(found, key=lambda v: (v.added, v.version))

    def find(self, text: str) -> AdapterVersion:
        """The version that ``NAME@VERSION`` names; for ``NAME`` the newest.

        Raises:
            UnknownAdapterError: there is none; the message lists what there is.
        """
        ref = AdapterRef.parse(text)
        versions = self.versions(ref.name)
        for version in reversed(versions):
            if ref.version in (None, version.version):
                return version
        known = [v.id for v in versions] or self.names()
        raise UnknownAdapterError(f"{text}: not in the registry; it holds {', '.join(known) or 'nothing yet'}")

    def live(self, name: str) -> Live:
        """The live version of a name and its history.

        Raises:
            AdapterError: live.json is damaged.
        """
        path = self.root / name / "live.json"
        if not path.is_file():
            return Live(None, ())
        raw = read_object(path)
        history = raw.get("history")
        words = [raw.get("version", 0), *(history if isinstance(history, list) else [0])]
        if not all(w is None or (isinstance(w, str) and VERSION.fullmatch(w)) for w in words):
            raise AdapterError(f"{path}: damaged; expected a version and a history of versions")
        return Live(words[0], tuple(w for w in words[1:] if w))

    def set_live(self, name: str, version: str | None) -> Live:
        """Make ``version`` (None for no version) the live one of ``name``; the one before goes to the history."""
        with self._lock():
            before = self.live(name)
            if before.version == version:
                return before
            history = [v for v in (before.version, *before.history) if v and v != version]
            after = Live(version, tuple(dict.fromkeys(history))[:_HISTORY])
            _write_live(self.root / name / "live.json", after)
            return after

    def history(self, name: str) -> list[AdapterVersion]:
        """The versions of a name that were live before the present one and still exist, newest first."""
        here = {v.version: v for v in self.versions(name)}
        return [here[version] for version in self.live(name).history if version in here]

    def previous(self, name: str) -> AdapterVersion:
        """What ``rollback`` goes back to.

        Raises:
            UnknownAdapterError: there is none.
        """
        for version in self.history(name):
            return version
        raise UnknownAdapterError(f"{name}: no earlier version to go back to")

    def remove(self, text: str) -> list[str]:
        """Delete a version, or all versions of a name; gives their ids.

        Raises:
            UnknownAdapterError: there is none.
            AdapterInUseError: a version is live or a running server knows it (deleting it would kill the server).
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
                (self.root / ref.name / "live.json").unlink(missing_ok=True)
            _remove_if_empty(self.root / ref.name)
            return [v.id for v in doomed]

    def gc(self, keep: int = 1) -> list[str]:
        """Delete versions but for the ``keep`` newest of each name; gives ids.

        What is live, what ``rollback`` would bring back, and what a server knows always stays.
        """
        removed: list[str] = []
        with self._lock():
            for leftover in [*self.root.glob("*/.draft-*"), *self.root.glob("*/.removed-*")]:
                shutil.rmtree(leftover)  # of an addition or removal that was killed: nobody else holds the lock
            for draft in self.root.glob("*/.live-*.json"):
                draft.unlink()
            leased = leased_versions(self.root)
            for name in self.names():
                kept = {self.live(name).version, *(v.version for v in self.history(name)[:1])}
                spare = [v for v in self.versions(name) if v.version not in kept]
                for version in spare[: max(0, len(spare) - keep)]:
                    if version.id not in leased:
                        self._delete(version)
                        removed.append(version.id)
        return removed

    def _delete(self, version: AdapterVersion) -> None:
        grave = Path(tempfile.mkdtemp(prefix=".removed-", dir=version.folder.parent))
        os.replace(version.folder, grave / version.version)
        shutil.rmtree(grave)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        self.root.mkdir(parents=True, exist_ok=True)
        with file_lock(self.root / ".lock"):
            yield


def _version(name: str, folder: Path) -> AdapterVersion:
    return AdapterVersion(name, folder.name, folder, folder.stat().st_mtime)


def _copy_in(source: Path, draft: Path) -> None:
    if not source.is_dir():
        raise AdapterError(f"{source}: no such adapter folder")
    for name in (CONFIG, WEIGHTS, "adapter_model.bin", MANIFEST):
        path = source / name
        if not path.exists():
            continue
        if not stat.S_ISREG(path.stat().st_mode):
            raise AdapterError(f"{path}: not a plain file")
        if name == "adapter_model.bin":
            (draft / name).touch()  # seen, so that the refusal can name it; never read
            continue
        shutil.copyfile(path, draft / name)
        (draft / name).chmod(0o444 & stat.S_IMODE((draft / name).stat().st_mode))
        _sync(draft / name)
    if (draft / MANIFEST).exists():
        read_object(draft / MANIFEST)
    if (draft / WEIGHTS).exists():
        (draft / "adapter_model.bin").unlink(missing_ok=True)


def _write_live(path: Path, live: Live) -> None:
    draft = path.with_name(f".live-{os.getpid()}.json")
    draft.write_text(json.dumps({"version": live.version, "history": list(live.history)}) + "\n", encoding="utf-8")
    _sync(draft)
    os.replace(draft, path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()

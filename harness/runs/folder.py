"""The run folder: its files, their checksums, and its lock."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import orjson

from harness.core.errors import RunError, truncate
from harness.runs.checked_json import read_record, write_record
from harness.runs.schemas.manifest_schema import Manifest, RunConfig
from harness.runs.schemas.results_schema import Results

_LOCK = ".lock"
TTT_PLAN, TTT_LOCK = "ttt.json", ".ttt.lock"
"""Files of a run with test-time training, which has no manifest until its first task is answered."""


@dataclass(frozen=True)
class RunFolder:
    """The folder that holds the files of one run."""

    path: Path

    @property
    def manifest_path(self) -> Path:
        return self.path / "manifest.json"

    @property
    def predictions_path(self) -> Path:
        return self.path / "predictions.jsonl"

    @property
    def results_path(self) -> Path:
        return self.path / "results.json"

    def manifest(self) -> Manifest:
        """Return the content of manifest.json.

        Raises:
            RunError: it is missing, invalid, or does not match its checksum.
        """
        return read_record(self.manifest_path, Manifest, "run", has_checksum=True)

    def results(self) -> Results:
        """Return the content of results.json.

        Raises:
            RunError: it is missing or invalid.
        """
        return read_record(self.results_path, Results, "run")

    def predictions_sha256(self) -> str:
        """Return the SHA-256 of predictions.jsonl in hexadecimal.

        Raises:
            RunError: it cannot be read.
        """
        try:
            with self.predictions_path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise RunError(f"{self.predictions_path}: cannot be read ({error.strerror})") from None

    def check_predictions(self, manifest: Manifest) -> None:
        """Check that the predictions did not change since the run finished; an unfinished run always passes.

        Raises:
            RunError: their SHA-256 is not that in the manifest.
        """
        expected = None if manifest.finished is None else manifest.predictions_sha256
        if expected is not None and expected != self.predictions_sha256():
            raise RunError(
                f"{self.predictions_path}: was changed since the run finished (its SHA-256 is not the one in "
                f"{self.manifest_path.name}); restore it, or score it as it stands with --format lines"
            )

    def start_run(self, manifest: Manifest, resume: bool) -> Manifest:
        """Write the manifest before the first request; the caller must hold ``locked``.

        Args:
            resume: whether to continue the run in the folder, if there is one. The manifest then keeps its start time,
                servers, warnings and other history.

        Returns:
            The manifest as written.

        Raises:
            RunError: the run to resume has another configuration, or its files were changed.
        """
        if self.manifest_path.exists() and resume:
            old = self.manifest()
            self.check_predictions(old)
            if changes := config_changes(old.config, manifest.config):
                raise RunError(
                    f"{self.path} was begun with another configuration; changed: {'; '.join(changes)}. "
                    "Resume it as it was begun, or choose another --out"
                )
            # With test-time training, all sessions of one command have its start time.
            same = manifest.config.ttt is not None and manifest.started in (old.started, *old.resumed)
            before = {model.name: model for model in old.served}
            manifest = manifest.model_copy(
                update={
                    "started": old.started,
                    "resumed": [*old.resumed, *([] if same else [manifest.started])],
                    "servers": list(dict.fromkeys([*old.servers, *manifest.servers])),
                    "warnings": list(dict.fromkeys([*old.warnings, *manifest.warnings])),
                    "without": sorted({*old.without, *manifest.without}),
                    "answered_as": old.answered_as,
                    "server_versions": old.server_versions | manifest.server_versions,
                    "served": [model.with_dtypes_of(before.get(model.name, model)) for model in manifest.served],
                }
            )
        self.write_manifest(manifest)
        return manifest

    def check_free(self, resume: bool, *, in_parts: bool = False) -> None:
        """Check that a run may be written to the folder.

        Args:
            in_parts: it is a run with test-time training, which has no manifest until a task is answered.

        Raises:
            RunError: the path is a file. Without ``resume``, the folder is not empty. With ``resume``, it does not
                exist, or holds files but no manifest.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"{self.path} is a file; --out must name a folder")
        if resume and not self.path.exists():
            raise RunError(f"{self.path}: there is no run to resume; correct --out, or leave out --resume to begin one")
        names = {p.name for p in self.path.iterdir()} if self.path.exists() else set()
        names = {name for name in names if name not in (_LOCK, TTT_LOCK) and not name.startswith(".tmp-")}
        if names and not resume:
            raise RunError(f"{self.path} exists and is not empty; --resume completes it, or choose another --out")
        if names and not self.manifest_path.exists() and not (in_parts and TTT_PLAN in names):
            raise RunError(f"{self.path} holds {', '.join(sorted(names)[:3])} but no manifest.json: it is not a run")

    def write_manifest(self, manifest: Manifest) -> None:
        """Write manifest.json atomically, with a checksum of its content."""
        write_record(self.manifest_path, manifest)

    @contextmanager
    def locked(self, name: str = _LOCK) -> Iterator[None]:
        """Hold an exclusive lock on the folder, which is made if missing.

        The operating system releases the lock if the process dies.

        Args:
            name: file of the lock; another one than a session's for what holds it during many sessions.

        Raises:
            RunError: another process holds the lock, or the folder cannot be written to.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            file = (self.path / name).open("ab+", buffering=0)
        except OSError as error:
            raise RunError(
                f"{self.path}: cannot write to this folder ({error.strerror}); choose another, or make it writable"
            ) from None
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                holder = file.read(60).decode(errors="replace").strip()
                raise RunError(
                    f"{self.path}: process {holder or 'unknown'} is writing to this run; wait or stop it"
                ) from None
            with suppress(OSError):  # on a full disk: the lock holds, and writing the manifest will fail
                file.truncate(0)
                file.write(b"%d\n" % os.getpid())
            yield


def config_changes(old: RunConfig, new: RunConfig) -> list[str]:
    """Return the fields that differ between two configurations, such as ``n: 2 -> 4``."""
    before, after = _flat(old), _flat(new)
    return [
        f"{name}: {_short_json(before.get(name))} -> {_short_json(after.get(name))}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def _flat(config: RunConfig) -> dict[str, object]:
    """Return a configuration as one flat dictionary, with names such as ``base's encoder`` and ``search.min_prob``."""
    fields = config.model_dump(exclude={"models", "search", "ttt"})
    if config.ttt is not None:
        fields |= {f"test-time training's {key}": value for key, value in config.ttt.flat_values().items()}
    search = {} if config.search is None else config.search.model_dump()
    fields |= {"search": "dfs" if search else None, **{f"search.{name}": value for name, value in search.items()}}
    fields["models"] = [model.name for model in config.models]
    for model in config.models:
        fields |= {f"{model.name}'s {key}": value for key, value in model.model_dump(exclude={"name"}).items()}
    return fields


def _short_json(value: object) -> str:
    return truncate(orjson.dumps(value).decode())

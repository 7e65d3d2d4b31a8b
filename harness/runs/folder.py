"""The run folder: its manifest, its lock, and predictions that survive ``kill -9``."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import orjson
from pydantic import BaseModel, ValidationError

from harness.core.errors import RunError, truncate
from harness.core.files import write_atomically
from harness.runs.prediction_log import complete_lines
from harness.runs.schema import Manifest, PredictionRecord, Results, RunConfig

_LOCK = ".lock"
_SHOWN = 60
R = TypeVar("R", bound=BaseModel)


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps its files."""

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
        """manifest.json.

        Raises:
            RunError: it is missing, not a manifest, or not the one that was written.
        """
        return _read(self.manifest_path, Manifest, sealed=True)

    def results(self) -> Results:
        """results.json.

        Raises:
            RunError: it is missing or not what it must be.
        """
        return _read(self.results_path, Results)

    def predictions(self) -> Iterator[PredictionRecord]:
        """Every prediction in the order of arrival; a torn last line is left out.

        Raises:
            RunError: a line is not a prediction; it names the line.
        """
        for number, line in enumerate(complete_lines(self.predictions_path), 1):
            try:
                yield PredictionRecord.model_validate_json(line)
            except ValidationError as error:
                raise RunError(f"{self.predictions_path}, line {number}: {_first(error)}") from None

    def predictions_sha256(self) -> str:
        """The SHA-256 of predictions.jsonl in hexadecimal."""
        try:
            with self.predictions_path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise RunError(f"{self.predictions_path}: cannot be read ({error.strerror})") from None

    def check_predictions(self, manifest: Manifest) -> None:
        """Refuse predictions that changed since the run finished; of an unfinished run nothing is known.

        Raises:
            RunError: they are not what the run had saved.
        """
        told = None if manifest.finished is None else manifest.predictions_sha256
        if told is not None and told != self.predictions_sha256():
            raise RunError(
                f"{self.predictions_path}: was changed since the run finished (its SHA-256 is not the one in "
                f"{self.manifest_path.name}); restore it, or score it as it stands with --format lines"
            )

    def start_run(self, manifest: Manifest, resume: bool) -> Manifest:
        """Make the folder ready for sampling and write the manifest, before anything is asked. Call under ``locked``.

        Returns:
            The manifest as written: with ``resume``, the first one's start and history are kept.

        Raises:
            RunError: the folder is in use by another run, or ``resume`` meets another configuration.
        """
        if self.manifest_path.exists() and resume:
            old = self.manifest()
            self.check_predictions(old)
            if changes := config_changes(old.config, manifest.config):
                raise RunError(
                    f"{self.path} was begun with another configuration; changed: {'; '.join(changes)}. "
                    "Resume it as it was begun, or choose another --out"
                )
            manifest = manifest.model_copy(
                update={
                    "started": old.started,
                    "resumed": [*old.resumed, manifest.started],
                    "servers": list(dict.fromkeys([*old.servers, *manifest.servers])),
                    "warnings": list(dict.fromkeys([*old.warnings, *manifest.warnings])),
                    "without": sorted({*old.without, *manifest.without}),
                    "answered_as": old.answered_as,
                    "server_versions": old.server_versions | manifest.server_versions,
                }
            )
        self.write_manifest(manifest)
        return manifest

    def check_free(self, resume: bool) -> None:
        """Refuse a folder that must not be written to, before any server is asked.

        Raises:
            RunError: the folder holds something and ``resume`` is not set, or is not there or no run.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"{self.path} is a file; --out must name a folder")
        if resume and not self.path.exists():
            raise RunError(f"{self.path}: there is no run to resume; correct --out, or leave out --resume to begin one")
        found = {p.name for p in self.path.iterdir()} if self.path.exists() else set()
        found = {name for name in found if name != _LOCK and not name.startswith(".tmp-")}
        if found and not resume:
            raise RunError(f"{self.path} exists and is not empty; --resume completes it, or choose another --out")
        if found and not self.manifest_path.exists():
            raise RunError(f"{self.path} holds {', '.join(sorted(found)[:3])} but no manifest.json: it is not a run")

    def write_manifest(self, manifest: Manifest) -> None:
        """Replace manifest.json in one step, with a checksum of its content."""
        fields = manifest.model_dump()
        sealed = {**fields, "checksum": _checksum(fields)}
        write_atomically(self.manifest_path, orjson.dumps(sealed, option=orjson.OPT_INDENT_2))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder (made where it is missing) for this process; the system lets go when the process dies.

        Raises:
            RunError: another process holds it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / _LOCK).open("ab+", buffering=0) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                holder = file.read(_SHOWN).decode(errors="replace").strip()
                raise RunError(
                    f"{self.path}: process {holder or 'unknown'} is writing to this run; wait or stop it"
                ) from None
            with suppress(OSError):  # No room: the lock holds all the same, and the manifest will say so.
                file.truncate(0)
                file.write(b"%d\n" % os.getpid())
            yield


def config_changes(old: RunConfig, new: RunConfig) -> list[str]:
    """What differs between two configurations, in words, one entry a field."""
    before, after = _flat(old), _flat(new)
    return [
        f"{name}: {_short_json(before.get(name))} -> {_short_json(after.get(name))}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def _flat(config: RunConfig) -> dict[str, object]:
    fields = config.model_dump(exclude={"models"})
    fields["models"] = [model.name for model in config.models]
    for model in config.models:
        fields |= {f"{model.name}'s {key}": value for key, value in model.model_dump(exclude={"name"}).items()}
    return fields


def _read(path: Path, kind: type[R], sealed: bool = False) -> R:
    try:
        content = path.read_bytes()
        return kind.model_validate_json(_unsealed(path, content) if sealed else content)
    except FileNotFoundError:
        raise RunError(f"{path} is missing: {path.parent} is not a run, or it did not get that far") from None
    except OSError as error:
        raise RunError(f"{path}: cannot be read ({error.strerror})") from None
    except ValidationError as error:
        raise RunError(f"{path}: {_first(error)}") from None


def _checksum(fields: dict[str, object]) -> str:
    return hashlib.sha256(orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _unsealed(path: Path, content: bytes) -> bytes:
    """The content without its checksum, which it must fit; as it is where it has none.

    Raises:
        RunError: it was changed since it was written.
    """
    try:
        fields = orjson.loads(content)
    except orjson.JSONDecodeError:
        return content  # validation says what is wrong
    if not isinstance(fields, dict) or "checksum" not in fields:
        return content
    if fields.pop("checksum") != _checksum(fields):
        raise RunError(
            f"{path}: does not fit its checksum, so that it was changed since it was written; restore it, or take the "
            'line "checksum" out of it if the change was meant'
        )
    return orjson.dumps(fields)


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'content'}: {first['msg']}"


def _short_json(value: object) -> str:
    return truncate(orjson.dumps(value).decode())

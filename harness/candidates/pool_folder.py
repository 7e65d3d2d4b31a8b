"""The folder of a pool: manifest.json with a checksum, and candidates.jsonl with one in every line."""

from __future__ import annotations

import hashlib
import secrets
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

from harness.candidates.pool_schema import CandidateRecord, PoolManifest
from harness.core.errors import DataError, RunError
from harness.core.files import atomic_writer
from harness.runs.checked_json import read_record, write_record
from harness.runs.logs.checked_lines import decode_line, encode_line

_REMEDY = "restore it, or make the pool again (bench pool)"


@dataclass(frozen=True)
class PoolFolder:
    """The folder that holds the files of one pool."""

    path: Path

    @property
    def manifest_path(self) -> Path:
        return self.path / "manifest.json"

    @property
    def candidates_path(self) -> Path:
        return self.path / "candidates.jsonl"

    def manifest(self) -> PoolManifest:
        """Return the content of manifest.json.

        Raises:
            RunError: it is missing, invalid, or does not match its checksum.
        """
        return read_record(self.manifest_path, PoolManifest, "pool", has_checksum=True)

    def candidates(self, manifest: PoolManifest) -> Iterator[tuple[str, CandidateRecord]]:
        """Yield every candidate, each with the file and line for messages.

        Raises:
            RunError: the file is missing.
            DataError: a line is damaged, with its number; lines are missing, or the file is not the one that was
                written.
        """
        path, sha, count = self.candidates_path, hashlib.sha256(), 0
        try:
            lines = path.open("rb")
        except OSError as error:
            raise RunError(f"{path}: cannot be read ({error.strerror}); {_REMEDY}") from None
        with lines:
            for count, line in enumerate(lines, 1):
                where = f"{path}, line {count}"
                sha.update(line)
                yield where, _parse_candidate(line, where, manifest)
        if count != manifest.candidates:
            raise DataError(f"{path}: {count} candidates, where the manifest has {manifest.candidates}; {_REMEDY}")
        if sha.hexdigest() != manifest.candidates_sha256:
            raise DataError(f"{path}: was changed since the pool was made (its SHA-256 differs); {_REMEDY}")

    def check_free(self) -> None:
        """Check that a pool may be written here.

        Raises:
            RunError: the path is a file, or a folder that is not empty.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RunError(f"{self.path} is a file; -o must name a folder")
        if self.path.exists() and any(self.path.iterdir()):
            raise RunError(f"{self.path} exists and is not empty; remove it, or choose another -o")

    def write(self, manifest: PoolManifest, candidates: Iterable[CandidateRecord]) -> PoolManifest:
        """Write the folder: it appears with all of its files, or not at all.

        Args:
            manifest: ``candidates`` and ``candidates_sha256`` are filled in.

        Returns:
            The manifest as written.

        Raises:
            RunError: as ``check_free``, or the folder cannot be written.
        """
        self.check_free()
        target = self.path.absolute()
        draft = PoolFolder(target.with_name(f".tmp-{secrets.token_hex(8)}"))
        try:
            complete = draft._write_files(manifest, candidates)
            draft.path.rename(target)  # replaces an empty folder
        except OSError as error:
            raise RunError(f"{self.path}: cannot write ({error.strerror}); nothing was written") from None
        finally:
            shutil.rmtree(draft.path, ignore_errors=True)
        return complete

    def _write_files(self, manifest: PoolManifest, candidates: Iterable[CandidateRecord]) -> PoolManifest:
        """Create this folder with its files, and return the complete manifest."""
        sha, count = hashlib.sha256(), 0
        with atomic_writer(self.candidates_path) as file:
            for record in candidates:
                line = encode_line(record)
                sha.update(line)
                file.write(line)
                count += 1
        complete = manifest.model_copy(update={"candidates": count, "candidates_sha256": sha.hexdigest()})
        write_record(self.manifest_path, complete)
        return complete


def is_pool(path: Path) -> bool:
    """Return whether a folder is a pool, by the kind in its manifest.json."""
    try:
        fields = orjson.loads((path / "manifest.json").read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return False
    return isinstance(fields, dict) and fields.get("kind") == "pool"


def _parse_candidate(line: bytes, where: str, manifest: PoolManifest) -> CandidateRecord:
    """Return the candidate of a line; raise DataError if the line is damaged or contradicts the manifest."""
    record = decode_line(CandidateRecord, line, where, _REMEDY)
    for proposal in record.proposals:
        if proposal.member >= len(manifest.members):
            raise DataError(f"{where}: member {proposal.member} of {len(manifest.members)}; {_REMEDY}")
        if proposal.view >= (views := manifest.members[proposal.member].views):
            raise DataError(f"{where}: view {proposal.view} of member {proposal.member}, of {views}; {_REMEDY}")
    if len({(p.member, p.sample) for p in record.proposals}) < len(record.proposals):
        raise DataError(f"{where}: a sample of a member occurs twice; {_REMEDY}")
    return record

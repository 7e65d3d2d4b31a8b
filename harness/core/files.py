"""Reading of plain and gzipped files, atomic writing, and the cache folder for derived files."""

from __future__ import annotations

import gzip
import hashlib
import logging
import os
import secrets
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from harness.core.errors import DataError, RunError

log = logging.getLogger("arc_bench")


def cache_dir() -> Path:
    """Return the folder for derived files: ``$ARC_BENCH_CACHE``, else ``$XDG_CACHE_HOME/arc-bench``.

    Without either variable it is ``~/.cache/arc-bench``.
    """
    if chosen := os.environ.get("ARC_BENCH_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "arc-bench"


def cache_key(path: Path) -> str:
    """Return 16 hex digits that identify a path; relative paths and links give the key of the real path."""
    return hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]


def fingerprint(path: Path) -> tuple[int, int]:
    """Return (size in bytes, modification time in ns), by which a derived file knows whether its source changed.

    Raises:
        DataError: the file does not exist or cannot be read.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    return stat.st_size, stat.st_mtime_ns


def complete_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file that end with a line break; none if there is no file."""
    if path.exists():
        with path.open("rb") as file:
            yield from (line for line in file if line.endswith(b"\n"))


def find_files(folder: Path, endings: tuple[str, ...], parents: tuple[str, ...] = ()) -> Iterator[Path]:
    """Yield the files in a folder and its subfolders whose names have one of these endings.

    Links are followed; names that begin with a dot are skipped.

    Args:
        parents: real paths of the folders above this one, so that a link back to one of them is not followed.

    Raises:
        DataError: a link's target does not exist.
    """
    real = os.path.realpath(folder)
    if real in parents:
        return
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from find_files(path, endings, (*parents, real))
        elif path.name.endswith(endings) and path.is_file():
            yield path
        elif path.is_symlink() and not path.exists():
            raise DataError(f"{path}: a link to {os.readlink(path)}, which is not there; mend or remove it")


@contextmanager
def atomic_writer(path: Path, draft: Path | None = None, durable: bool = True) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces ``path`` when the block ends without an error.

    Readers find the old content or the new one, never a part of it. Missing parent folders are made.

    Args:
        draft: the temporary file; by default one with a random name beside ``path``, so that several processes can
            write the same path at once. With a fixed name the next attempt overwrites what a killed one left.
        durable: flush the content to disk before it replaces the old one, so that this also holds after a power
            failure; not worth the time for files that can be derived again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = draft or path.with_name(f".tmp-{secrets.token_hex(8)}")
    try:
        with draft.open("wb") as file:  # unlike files of tempfile, it gets the permissions of the umask
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file with ``atomic_writer``.

    Raises:
        RunError: it cannot be written; the old content is still there.
    """
    try:
        with atomic_writer(path) as file:
            file.write(data)
    except OSError as error:
        raise RunError(f"{path}: cannot write ({error.strerror}); it is as it was") from None


def read_uncompressed(path: Path) -> bytes:
    """Return the content of a file, decompressed if its name ends in ``.gz``.

    Raises:
        DataError: the file cannot be read, is empty, or is not valid gzip.
    """
    try:
        raw = path.read_bytes()
        content = gzip.decompress(raw) if path.suffix == ".gz" and raw else raw
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise _bad_gzip(path, error) from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    if not content.strip():
        raise DataError(f"{path}: the file is empty")
    return content


def uncompressed_path(path: Path) -> Path:
    """Return the path itself or, for a ``.gz``, the path of its decompressed copy in the cache.

    The copy is made on first use, and again if the source or the copy changed since.

    Raises:
        DataError: the file cannot be read or is not valid gzip.
    """
    size, mtime = fingerprint(path)
    if path.suffix != ".gz":
        return path
    folder = cache_dir() / "unpacked" / cache_key(path)
    copy = folder / f"{size}-{mtime}" / path.stem
    if _is_unchanged(copy):
        return copy
    log.warning("unpacking %s (%s) into %s, once", path, _format_size(size), cache_dir())
    stale = [old for old in folder.glob("*") if old.is_dir() and old != copy.parent]
    try:
        with gzip.open(path) as source, atomic_writer(copy, durable=False) as file:
            shutil.copyfileobj(source, file, 1 << 20)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise _bad_gzip(path, error) from None
    with atomic_writer(_fingerprint_file(copy), durable=False) as file:
        file.write(_fingerprint_text(copy))
    for old in stale:
        shutil.rmtree(old, ignore_errors=True)
    log.warning("unpacked %s: %s", path, _format_size(copy.stat().st_size))
    return copy


def _fingerprint_file(copy: Path) -> Path:
    """Return the path of the file that records a decompressed copy's fingerprint at the time it was made."""
    return copy.with_name(f".{copy.name}.written")


def _fingerprint_text(copy: Path) -> bytes:
    return "{} {}".format(*fingerprint(copy)).encode()


def _is_unchanged(copy: Path) -> bool:
    """Return whether a decompressed copy exists and has the fingerprint that it had when it was made."""
    recorded = _fingerprint_file(copy)
    return copy.exists() and recorded.exists() and recorded.read_bytes() == _fingerprint_text(copy)


def _format_size(size: float) -> str:
    """Return a number of bytes in decimal units, e.g. ``2.8 GB``."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


def _bad_gzip(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: not a whole gzip file ({error}); fetch or pack it again")


def sync_to_disk(path: Path) -> None:
    """Wait until a file or folder is written to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

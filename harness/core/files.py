"""Files as users keep them: plain or gzipped, and what is derived from them in a cache folder."""

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

from harness.core.errors import DataError

log = logging.getLogger("arc_bench")


def cache_dir() -> Path:
    """Where derived files go: ``$ARC_BENCH_CACHE``, else ``arc-bench`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    if chosen := os.environ.get("ARC_BENCH_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "arc-bench"


def cache_key(path: Path) -> str:
    """A short name for a path on this machine, the same however the path is written."""
    return hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]


def fingerprint(path: Path) -> tuple[int, int]:
    """(size in bytes, modification time in ns): what a derived file was made from.

    Raises:
        DataError: the file is not there or cannot be read.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    return stat.st_size, stat.st_mtime_ns


def files_below(folder: Path, endings: tuple[str, ...], above: tuple[str, ...] = ()) -> Iterator[Path]:
    """The files of a folder and of those in it with one of these endings, through links; hidden ones are left out.

    Args:
        above: the real paths of the folders that lead here, so that a link to one of them is not followed.

    Raises:
        DataError: a link leads nowhere.
    """
    real = os.path.realpath(folder)
    if real in above:
        return
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from files_below(path, endings, (*above, real))
        elif path.name.endswith(endings) and path.is_file():
            yield path
        elif path.is_symlink() and not path.exists():
            raise DataError(f"{path}: a link to {os.readlink(path)}, which is not there; mend or remove it")


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """A file that appears under its name only when it is complete, whatever other processes write at the same time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = new_file(path.parent, f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def new_file(folder: Path, prefix: str) -> tuple[int, Path]:
    """Make a file with a name of its own and the permissions that the umask leaves; mkstemp's are the owner's alone.

    Returns:
        Its descriptor, open for writing, and its path.
    """
    path = folder / f"{prefix}{secrets.token_hex(8)}"
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), path


def read_bytes(path: Path) -> bytes:
    """The content of a file, unzipped where its name ends in ``.gz``.

    Raises:
        DataError: it cannot be read, is empty, or is not the gzip it claims to be.
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


def plain_file(path: Path) -> Path:
    """The file itself, or for a ``.gz`` its unpacked copy in the cache, made once and again when either changes.

    Raises:
        DataError: it cannot be read or is not the gzip it claims to be.
    """
    size, mtime = fingerprint(path)
    if path.suffix != ".gz":
        return path
    folder = cache_dir() / "unpacked" / cache_key(path)
    target = folder / f"{size}-{mtime}" / path.stem
    if _is_as_written(target):
        return target
    log.warning("unpacking %s (%s) into %s, once", path, human_size(size), cache_dir())
    stale = [old for old in folder.glob("*") if old.is_dir() and old != target.parent]
    try:
        with gzip.open(path) as source, written_whole(target) as file:
            shutil.copyfileobj(source, file, 1 << 20)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise _bad_gzip(path, error) from None
    with written_whole(_seal(target)) as file:
        file.write(_state(target))
    for old in stale:
        shutil.rmtree(old, ignore_errors=True)
    log.warning("unpacked %s: %s", path, human_size(target.stat().st_size))
    return target


def _seal(copy: Path) -> Path:
    """The file beside an unpacked copy that says how it was left."""
    return copy.with_name(f".{copy.name}.written")


def _state(copy: Path) -> bytes:
    return "{} {}".format(*fingerprint(copy)).encode()


def _is_as_written(copy: Path) -> bool:
    """Whether an unpacked copy is there, and nobody cut or changed it since it was made."""
    return copy.exists() and _seal(copy).exists() and _seal(copy).read_bytes() == _state(copy)


def human_size(size: float) -> str:
    """Bytes for people, e.g. ``2.8 GB`` (decimal units)."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


def _bad_gzip(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: not a whole gzip file ({error}); fetch or pack it again")

"""Disks without room: a small one of its own where this process may mount, else a limit on the size of files."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The system refuses to let any file grow beyond ``size`` bytes, in this process and those that it starts.

    Python does not notice that a .pyc was cut short (python/cpython#126606), so that none may be written meanwhile: the
    environment would be broken for everybody after.
    """
    bytecode, variable = sys.dont_write_bytecode, os.environ.get("PYTHONDONTWRITEBYTECODE", "")
    sys.dont_write_bytecode, os.environ["PYTHONDONTWRITEBYTECODE"] = True, "1"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        sys.dont_write_bytecode, os.environ["PYTHONDONTWRITEBYTECODE"] = bytecode, variable


@contextmanager
def _limited(folder: Path, free: int) -> Iterator[Path]:
    folder.mkdir()
    with largest_file(free):
        yield folder


@contextmanager
def small_disk(folder: Path, free: int) -> Iterator[Path]:
    """A folder with room for ``free`` bytes, a multiple of 4096: a tmpfs of its own that is filled up to there, or
    where none may be mounted, files that may not grow beyond that.
    """
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        with largest_file(free):
            yield folder
        return
    try:
        (folder / ".filler").write_bytes(bytes((1 << 20) - free))
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


FULL: dict[str, Callable[[Path, int], AbstractContextManager[Path]]] = {"limit": _limited, "disk": small_disk}
"""Both kinds of a folder with room for some bytes."""

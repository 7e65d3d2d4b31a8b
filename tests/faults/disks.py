"""Full disks: a small tmpfs if this process may mount one, else a limit on the size of files."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path


@contextmanager
def limit_file_size(size: int) -> Iterator[None]:
    """Refuse to let any file grow beyond ``size`` bytes, in this process and its children.

    Meanwhile Python writes no .pyc files: it does not notice that one was truncated (python/cpython#126606), which
    would break the environment.
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
    with limit_file_size(free):
        yield folder


@contextmanager
def small_disk(folder: Path, free: int) -> Iterator[Path]:
    """Create a folder with room for ``free`` bytes, a multiple of 4096.

    It is a tmpfs that is filled up to there. If none can be mounted, no file may grow beyond ``free`` bytes.
    """
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        with limit_file_size(free):
            yield folder
        return
    try:
        (folder / ".filler").write_bytes(bytes((1 << 20) - free))
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


FULL_DISKS: dict[str, Callable[[Path, int], AbstractContextManager[Path]]] = {"limit": _limited, "disk": small_disk}
"""Both ways to get a folder with room for some bytes, by name."""

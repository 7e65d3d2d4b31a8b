"""Leases: which running servers use which registered versions, so that no version is deleted while a server uses it.

Each server keeps ``DIR/.servers/PORT.json`` open under a file lock, which the system drops when the process ends,
however it ends. A lease file without a lock belongs to no running server; whoever reads it deletes it.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from harness.core.errors import AdapterError

_SHUTDOWN_SECONDS = 120.0
"""How long a new server waits for the lease of one on the same port that is shutting down."""


@dataclass(frozen=True, slots=True)
class ServerLease:
    """A running server.

    Attributes:
        url: its address.
        pid: the process to stop.
        versions: ids of the versions that it may read from disk.
    """

    url: str
    pid: int
    versions: tuple[str, ...]


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on ``path`` while the block runs; waits for the lock and creates the file."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class LeaseFile:
    """The lease that a server holds for itself, until ``close`` or the end of the process.

    Waits for the lease of a server on the same port that is still shutting down. ``add`` and ``discard`` run on one
    event loop.
    """

    def __init__(self, root: Path, url: str, port: int) -> None:
        self._root = root
        folder = root / ".servers"
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{port}.json"
        self._url = url
        self._versions: set[str] = set()
        self._saving = asyncio.Lock()
        self._file: IO[str]
        until = time.monotonic() + _SHUTDOWN_SECONDS
        while not self._try_to_acquire():
            if time.monotonic() > until:
                holder = self._path.read_text(errors="replace")[:300].strip()
                raise AdapterError(
                    f"{self._path}: another server with port {port} uses this registry and has not ended within "
                    f"{_SHUTDOWN_SECONDS:.0f} s ({holder}); wait for its end or stop it, or choose another port"
                )
            time.sleep(0.1)

    def _try_to_acquire(self) -> bool:
        """Open, lock and fill the file; False if another process holds it.

        It holds the registry's lock, so that no other process sees the file unlocked or empty.
        """
        with file_lock(self._root / ".lock"):
            self._file = self._path.open("a+")
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # a server on this port is still shutting down
                self._file.close()
                return False
            self._write(())
            return True

    async def add(self, version: str) -> None:
        """Add a version to the lease, given its id; call it before the server reads the version."""
        self._versions.add(version)
        await self._save()

    async def discard(self, version: str) -> None:
        """Remove a version from the lease, given its id, when the server no longer reads it."""
        self._versions.discard(version)
        await self._save()

    async def _save(self) -> None:
        """Write the ids to the file, under the registry's lock and without blocking the event loop."""
        async with self._saving:
            await asyncio.to_thread(self._save_locked, tuple(sorted(self._versions)))

    def _save_locked(self, versions: tuple[str, ...]) -> None:
        with file_lock(self._root / ".lock"):
            self._write(versions)

    def _write(self, versions: tuple[str, ...]) -> None:
        """Replace the file's content. The registry's lock is held."""
        lease = ServerLease(self._url, os.getpid(), versions)
        self._file.seek(0)
        self._file.truncate()
        json.dump(asdict(lease), self._file)
        self._file.flush()

    def close(self) -> None:
        """Delete the lease."""
        self._path.unlink(missing_ok=True)
        self._file.close()


def running_servers(root: Path) -> list[ServerLease]:
    """Return the servers that run on this registry and delete the leases of dead ones. Hold the registry's lock."""
    folder = root / ".servers"
    leases: list[ServerLease] = []
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        with path.open("r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raw = json.load(file)
                leases.append(ServerLease(raw["url"], raw["pid"], tuple(raw["versions"])))
            else:
                path.unlink(missing_ok=True)
    return leases


def leased_versions(root: Path) -> dict[str, str]:
    """Return each leased version id with the address of a server that uses it. Hold the registry's lock."""
    return {version: lease.url for lease in running_servers(root) for version in lease.versions}

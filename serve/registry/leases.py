"""Which running servers know which registered versions, so that none is deleted under a server.

Each server keeps ``DIR/.servers/PORT.json`` open under a lock that the system drops when the process dies, however it
dies. A file that nobody locks is a leftover and is deleted by whoever finds it.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO


@dataclass(frozen=True, slots=True)
class ServerLease:
    """A running server: its address, the process to stop, and the versions that it may read from disk."""

    url: str
    pid: int
    versions: tuple[str, ...]


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on ``path`` (made if missing), waiting for it."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class LeaseFile:
    """A server's own lease; hold the object as long as the server runs."""

    def __init__(self, root: Path, url: str, port: int) -> None:
        self._root = root
        folder = root / ".servers"
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{port}.json"
        self._url = url
        self._file: IO[str]
        while not self._take():
            time.sleep(0.1)

    def _take(self) -> bool:
        """Open, lock and fill the file in one go, so that nobody sees it unlocked or empty; False where it is held."""
        with file_lock(self._root / ".lock"):
            self._file = self._path.open("a+")
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # a server of this port that is still going down
                self._file.close()
                return False
            self._write(())
            return True

    def write(self, versions: Iterable[str]) -> None:
        """Declare the versions known from now on; a version is declared before it is read, never after."""
        with file_lock(self._root / ".lock"):
            self._write(versions)

    def _write(self, versions: Iterable[str]) -> None:
        lease = ServerLease(self._url, os.getpid(), tuple(sorted(versions)))
        self._file.seek(0)
        self._file.truncate()
        json.dump(asdict(lease), self._file)
        self._file.flush()

    def close(self) -> None:
        """Give the lease up."""
        self._path.unlink(missing_ok=True)
        self._file.close()


class Declarations:
    """The versions that one running server may read, kept in its lease. All methods run on the server's event loop."""

    def __init__(self, lease: LeaseFile) -> None:
        self._lease = lease
        self._versions: set[str] = set()
        self._lock = asyncio.Lock()

    async def add(self, version: str) -> None:
        """Declare a version, before it is read."""
        self._versions.add(version)
        await self._write()

    async def discard(self, version: str) -> None:
        """Take a version back that is not read any more."""
        self._versions.discard(version)
        await self._write()

    async def _write(self) -> None:
        async with self._lock:
            await asyncio.to_thread(self._lease.write, sorted(self._versions))


def running_servers(root: Path) -> list[ServerLease]:
    """The servers that run on this registry; leftovers of dead ones are deleted. Hold the registry's lock."""
    folder = root / ".servers"
    found: list[ServerLease] = []
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        with path.open("r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raw = json.load(file)
                found.append(ServerLease(raw["url"], raw["pid"], tuple(raw["versions"])))
            else:
                path.unlink(missing_ok=True)
    return found


def leased_versions(root: Path) -> dict[str, str]:
    """Version id to the address of a server that knows it."""
    return {version: lease.url for lease in running_servers(root) for version in lease.versions}

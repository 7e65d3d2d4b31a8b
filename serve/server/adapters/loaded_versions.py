"""The adapter versions in the engine: how many requests use each, and when it is unloaded."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from harness.core.errors import AdapterError
from serve.registry.adapter_version import AdapterInUseError, AdapterVersion, VerifiedAdapter
from serve.registry.base_model import BaseModel
from serve.registry.leases import LeaseFile
from serve.server.adapters.engine import Engine


@dataclass(slots=True)
class LoadedVersion:
    """A version in the engine.

    Attributes:
        requests: requests that use it now.
        served: requests that have used it.
        retiring: no new request may use it; it is unloaded when idle.
        unloading: the engine is unloading it.
        idle: set while no request uses it.
        gone: set when it is unloaded.
    """

    version: AdapterVersion
    verified: VerifiedAdapter
    requests: int = 0
    served: int = 0
    retiring: bool = False
    unloading: bool = False
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @contextmanager
    def use(self) -> Iterator[None]:
        """Count a request that uses this version, so that it stays loaded while the block runs."""
        self.requests += 1
        self.idle.clear()
        try:
            yield
        finally:
            self.requests -= 1
            self.served += 1
            if self.requests == 0:
                self.idle.set()


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """The server's --max-lora-rank and --max-cpu-loras."""

    max_rank: int
    max_loaded: int


class LoadedVersions:
    """Loads versions of the registry into the engine and unloads them.

    Args:
        engine: loads and unloads the weights.
        base: the served model.
        limits: of the engine.
        lease: lists the versions that the engine may read, so that no process deletes them.

    Attributes:
        entries: every loaded version by id, including retiring ones.
    """

    def __init__(self, engine: Engine, base: BaseModel, limits: PoolLimits, lease: LeaseFile) -> None:
        self.entries: dict[str, LoadedVersion] = {}
        self._engine = engine
        self._base = base
        self._limits = limits
        self._lease = lease
        self._retirements: set[asyncio.Task[None]] = set()

    async def load(self, version: AdapterVersion) -> None:
        """Validate and load a version unless it is loaded; one that is retiring stays loaded.

        The manifest of a loaded one is read again: ``bench adapters add`` may have corrected prompt or encoder, which
        are not part of the version.

        Raises:
            AdapterInUseError: the server has no room for it, or the base has its name.
            AdapterError: it cannot be served.
        """
        entry = self.entries.get(version.id)
        if entry is not None and entry.unloading:
            await entry.gone.wait()
        elif entry is not None:
            entry.verified = replace(entry.verified, manifest=version.manifest)  # small; no other task runs before
            entry.retiring = False
            return
        if version.name == self._base.name:
            raise AdapterInUseError(f"{version.name}: the base model has this name; add the adapter under another")
        if len(self.entries) >= self._limits.max_loaded:
            raise AdapterInUseError(
                f"{version.id}: this server holds its {self._limits.max_loaded} adapters already; unload one, or start "
                "it with a larger --max-cpu-loras"
            )
        try:
            await self._lease.add(version.id)
            stamp = version.file_stamp()
            verified = await asyncio.to_thread(version.verify, self._base, self._limits.max_rank)
            await self._engine.load(version.id, str(version.folder))
            if version.file_stamp() != stamp:  # the files changed between their check and the engine's reading
                await self._engine.unload(version.id)
                raise AdapterError(f"{version.folder}: changed on disk while it was loaded; it was unloaded again")
        except (AdapterError, OSError):
            await self._lease.discard(version.id)
            raise
        entry = LoadedVersion(version, verified)
        entry.idle.set()
        self.entries[version.id] = entry

    def retire(self, model: str) -> asyncio.Task[None]:
        """Accept no new request for a loaded version, given its id, and start a task that unloads it when idle."""
        entry = self.entries[model]
        entry.retiring = True
        task = asyncio.create_task(self._unload_when_idle(model, entry))
        self._retirements.add(task)
        task.add_done_callback(self._retirements.discard)
        return task

    async def _unload_when_idle(self, model: str, entry: LoadedVersion) -> None:
        """Unload a retiring version after its last request, unless it was loaded again in the meantime."""
        await entry.idle.wait()
        # It may have been loaded again; if it then retired again with new requests, a later task waits for those.
        if not entry.retiring or entry.unloading or entry.requests:
            return
        entry.unloading = True
        try:
            await self._engine.unload(model)
        finally:
            del self.entries[model]
            entry.gone.set()
        await self._lease.discard(model)  # before any task that waited for ``gone`` adds it again

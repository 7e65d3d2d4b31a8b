"""The adapters of one running server: which versions are loaded, which is live, and how many requests use each.

A swap never changes a version in use: the new version is loaded beside the old one, then the name is switched to it,
and the old version is unloaded when its last request is done. All methods run on the server's event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from harness.core.errors import AdapterError
from serve.registry.adapter_version import (
    AdapterInUseError,
    AdapterRef,
    AdapterVersion,
    UnknownAdapterError,
    VerifiedAdapter,
)
from serve.registry.base_model import BaseModel
from serve.registry.leases import LeaseFile
from serve.registry.store import Registry
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


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """The server's --max-lora-rank and --max-cpu-loras."""

    max_rank: int
    max_loaded: int


class AdapterPool:
    """The loaded adapters of one server over one registry.

    Args:
        engine: loads and unloads the weights.
        registry: where the versions are.
        base: the served model; a request that gives its name uses no adapter.
        limits: of the engine.
        lease: lists the versions that the engine may read, so that no process deletes them.
        on_swap: called with each name that was switched to another version.
    """

    def __init__(
        self,
        engine: Engine,
        registry: Registry,
        base: BaseModel,
        limits: PoolLimits,
        lease: LeaseFile,
        on_swap: Callable[[str], None] = lambda name: None,
    ) -> None:
        self.base = base
        self.registry = registry
        self.swaps = 0
        self._on_swap = on_swap
        self._engine = engine
        self._limits = limits
        self._lease = lease
        self._loaded: dict[str, LoadedVersion] = {}
        self._live: dict[str, str] = {}
        self._lock = asyncio.Lock()
        self._retirements: set[asyncio.Task[None]] = set()

    # For requests.

    @contextmanager
    def use(self, model: str) -> Iterator[str]:
        """Resolve a request's ``model`` and keep that version loaded while the block runs; yield its id.

        Raises:
            UnknownAdapterError: ``model`` is not the base, a live name or a loaded version; the message lists these.
        """
        if model == self.base.name:
            yield model
            return
        entry = self._find_loaded(model)
        entry.requests += 1
        entry.idle.clear()
        try:
            yield entry.version.id
        finally:
            entry.requests -= 1
            entry.served += 1
            if entry.requests == 0:
                entry.idle.set()

    def _find_loaded(self, model: str) -> LoadedVersion:
        """Return the loaded version that a name or version id means (same errors as ``use``)."""
        entry = self._loaded.get(self._live.get(model, model))
        if entry is None or entry.retiring:
            known = [
                self.base.name,
                *sorted(self._live),
                *(i for i, e in sorted(self._loaded.items()) if not e.retiring),
            ]
            raise UnknownAdapterError(f"The model {model[:200]!r} does not exist here; known: {', '.join(known)}")
        return entry

    @property
    def live(self) -> dict[str, str]:
        """The id of each name's live version."""
        return dict(self._live)

    @property
    def loaded(self) -> dict[str, LoadedVersion]:
        """Every loaded version by id, including retiring ones."""
        return dict(self._loaded)

    # For administrators.

    async def load(self, text: str, *, live: bool = True) -> AdapterVersion:
        """Load a version of the registry and return it.

        ``NAME`` means its newest version and makes it live. ``NAME@VERSION`` becomes live only if its name has no live
        version; otherwise only requests for ``NAME@VERSION`` use it.

        Args:
            text: ``NAME`` or ``NAME@VERSION``.
            live: False never makes it live.

        Raises:
            UnknownAdapterError: it is not in the registry.
            AdapterInUseError: the server has no room for it, or the base has its name.
            AdapterError: it cannot be served.
        """
        async with self._lock:
            version = await asyncio.to_thread(self.registry.find, text)
            if live and (AdapterRef.parse(text).version is None or version.name not in self._live):
                await self._make_live(version)
            else:
                await self._ensure_loaded(version)
            return version

    async def promote(self, text: str) -> AdapterVersion:
        """Make ``NAME@VERSION`` live, loading it if necessary; the previously live version is unloaded when idle.

        Raises:
            as ``load``.
        """
        if AdapterRef.parse(text).version is None:
            raise AdapterError(f"{text}: promote needs NAME@VERSION")
        async with self._lock:
            version = await asyncio.to_thread(self.registry.find, text)
            await self._make_live(version)
            return version

    async def rollback(self, name: str) -> AdapterVersion:
        """Make the previously live version of ``name`` live again (same errors as ``load``)."""
        ref = AdapterRef.parse(name)
        if ref.version is not None:
            raise AdapterError(f"{name}: rollback takes a plain NAME")
        async with self._lock:
            version = await asyncio.to_thread(self.registry.previous, ref.name)
            await self._make_live(version)
            return version

    async def unload(self, text: str) -> list[str]:
        """Unload ``NAME@VERSION`` or every version of ``NAME``, wait until they are unloaded, and return their ids.

        Raises:
            UnknownAdapterError: no such version is loaded.
            AdapterInUseError: the single version is live (promote another one, or unload the name).
        """
        ref = AdapterRef.parse(text)
        async with self._lock:
            leaving = [i for i, e in self._loaded.items() if e.version.name == ref.name and not e.retiring]
            leaving = [i for i in leaving if ref.version is None or i == text]
            if not leaving:
                raise UnknownAdapterError(f"{text}: not loaded; loaded: {', '.join(sorted(self._loaded)) or 'nothing'}")
            if ref.version and self._live.get(ref.name) == text:
                raise AdapterInUseError(f"{text}: is live; promote another version or unload all of {ref.name}")
            if ref.version is None and ref.name in self._live:
                # The disk first: if that fails, the name stays live and its versions loaded.
                await asyncio.to_thread(self.registry.set_live, ref.name, None)
                del self._live[ref.name]
            tasks = [self._retire_version(i) for i in leaving]
        await asyncio.gather(*tasks)
        return leaving

    async def restore(self) -> list[str]:
        """Load the registry's live versions; return a line ``NAME: reason`` for each that cannot be loaded."""
        reasons: list[str] = []
        for name in await asyncio.to_thread(self.registry.names):
            try:
                live = self.registry.live(name).version
                if live is not None:
                    await self.load(f"{name}@{live}")
            except AdapterError as error:
                reasons.append(f"{name}: {error}")
        return reasons

    async def _make_live(self, version: AdapterVersion) -> None:
        """Load a version if necessary, make it live, and retire the previously live one."""
        before = self._live.get(version.name)
        if before == version.id:
            return
        await self._ensure_loaded(version)
        # The disk first: a server that dies in between restores the requested state.
        await asyncio.to_thread(self.registry.set_live, version.name, version.version)
        self._live[version.name] = version.id
        if before is not None:
            self.swaps += 1
            self._on_swap(version.name)
            self._retire_version(before)

    async def _ensure_loaded(self, version: AdapterVersion) -> None:
        """Load and validate a version unless it is loaded; one that is retiring stays loaded."""
        entry = self._loaded.get(version.id)
        if entry is not None and entry.unloading:
            await entry.gone.wait()
        elif entry is not None:
            entry.retiring = False
            return
        if version.name == self.base.name:
            raise AdapterInUseError(f"{version.name}: the base model has this name; add the adapter under another")
        if len(self._loaded) >= self._limits.max_loaded:
            raise AdapterInUseError(
                f"{version.id}: this server holds its {self._limits.max_loaded} adapters already; unload one, or start "
                "it with a larger --max-cpu-loras"
            )
        try:
            await self._lease.add(version.id)
            stamp = version.file_stamp()
            verified = await asyncio.to_thread(version.verify, self.base, self._limits.max_rank)
            await self._engine.load(version.id, str(version.folder))
            if version.file_stamp() != stamp:  # the files changed between their check and the engine's reading
                await self._engine.unload(version.id)
                raise AdapterError(f"{version.folder}: changed on disk while it was loaded; it was unloaded again")
        except (AdapterError, OSError):
            await self._lease.discard(version.id)
            raise
        entry = LoadedVersion(version, verified)
        entry.idle.set()
        self._loaded[version.id] = entry

    def _retire_version(self, model: str) -> asyncio.Task[None]:
        """Accept no new request for a version and start a task that unloads it when idle."""
        entry = self._loaded[model]
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
            del self._loaded[model]
            entry.gone.set()
        await self._lease.discard(model)  # before any task that waited for ``gone`` adds it again

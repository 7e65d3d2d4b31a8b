"""The adapters that one running server knows: which versions are loaded, which a name means, and who still uses what.

A swap never touches a version in use: the new version is loaded beside the old, the name is pointed at it, and the old
one is unloaded when its last request is done. All methods run on the server's event loop.
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
from serve.registry.leases import Declarations, LeaseFile
from serve.registry.store import Registry
from serve.server.engine import Engine


@dataclass(slots=True)
class Loaded:
    """One version in the engine, and how many requests use it now (``requests``) and did in all (``served``)."""

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
    """What the server was started with: --max-lora-rank and --max-cpu-loras."""

    max_rank: int
    max_loaded: int


class AdapterPool:
    """The loaded adapters of one server over one registry.

    Args:
        base: the served model; its name is the one that requests give for no adapter.
        lease: where the versions that the engine may read are declared, so that nobody deletes them.
        on_swap: called with a name that was pointed at another version.
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
        self._declared = Declarations(lease)
        self._loaded: dict[str, Loaded] = {}
        self._live: dict[str, str] = {}
        self._lock = asyncio.Lock()
        self._retirements: set[asyncio.Task[None]] = set()

    # What requests need.

    @contextmanager
    def use(self, model: str) -> Iterator[str]:
        """Resolve a request's ``model`` and keep that version loaded while the block runs; gives the version's id.

        Raises:
            UnknownAdapterError: not the base, a live name or a loaded version; the message lists what there is.
        """
        if model == self.base.name:
            yield model
            return
        entry = self._resolve(model)
        entry.requests += 1
        entry.idle.clear()
        try:
            yield entry.version.id
        finally:
            entry.requests -= 1
            entry.served += 1
            if entry.requests == 0:
                entry.idle.set()

    def resolve(self, model: str) -> str:
        """The id that a request for ``model`` would be answered by now (raises as ``use``)."""
        return model if model == self.base.name else self._resolve(model).version.id

    def _resolve(self, model: str) -> Loaded:
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
        """Name to the id of its live version."""
        return dict(self._live)

    @property
    def loaded(self) -> dict[str, Loaded]:
        """Every loaded version by id, retiring ones included."""
        return dict(self._loaded)

    # What administrators do.

    async def load(self, text: str, *, live: bool = True) -> AdapterVersion:
        """Load a version of the registry.

        ``NAME`` means its newest version and makes it live (a swap, where another was). ``NAME@VERSION`` becomes live
        only where its name has no live version, and otherwise answers under its full name alone. With ``live`` false
        no name moves: the version is only made ready.

        Raises:
            UnknownAdapterError, AdapterInUseError (no room), AdapterError (it cannot be served).
        """
        async with self._lock:
            version = await asyncio.to_thread(self.registry.find, text)
            if live and (AdapterRef.parse(text).version is None or version.name not in self._live):
                await self._swap(version)
            else:
                await self._ensure(version)
            return version

    async def promote(self, text: str) -> AdapterVersion:
        """Make ``NAME@VERSION`` live: load it if need be, point the name at it, unload the one before when it is idle.

        Raises:
            as ``load``.
        """
        if AdapterRef.parse(text).version is None:
            raise AdapterError(f"{text}: promote needs NAME@VERSION")
        async with self._lock:
            version = await asyncio.to_thread(self.registry.find, text)
            await self._swap(version)
            return version

    async def rollback(self, name: str) -> AdapterVersion:
        """Promote the version of ``name`` that was live before the present one (raises as ``load``)."""
        ref = AdapterRef.parse(name)
        if ref.version is not None:
            raise AdapterError(f"{name}: rollback takes a plain NAME")
        async with self._lock:
            version = await asyncio.to_thread(self.registry.previous, ref.name)
            await self._swap(version)
            return version

    async def unload(self, text: str) -> list[str]:
        """Unload ``NAME@VERSION``, or every version of ``NAME``, and wait until each is gone; gives the ids.

        Raises:
            UnknownAdapterError: none is loaded.
            AdapterInUseError: a single version that is live (promote another, or unload the name).
        """
        ref = AdapterRef.parse(text)
        async with self._lock:
            doomed = [i for i, e in self._loaded.items() if e.version.name == ref.name and not e.retiring]
            doomed = [i for i in doomed if ref.version is None or i == text]
            if not doomed:
                raise UnknownAdapterError(f"{text}: not loaded; loaded: {', '.join(sorted(self._loaded)) or 'nothing'}")
            if ref.version and self._live.get(ref.name) == text:
                raise AdapterInUseError(f"{text}: is live; promote another version or unload all of {ref.name}")
            if ref.version is None and ref.name in self._live:
                # The disk first: where it cannot be written, the name stays live and its versions loaded.
                await asyncio.to_thread(self.registry.set_live, ref.name, None)
                del self._live[ref.name]
            tasks = [self._retire(i) for i in doomed]
        await asyncio.gather(*tasks)
        return doomed

    async def restore(self) -> list[str]:
        """Load what is live in the registry; gives the reasons for those that no longer can be, which are left out."""
        reasons: list[str] = []
        for name in await asyncio.to_thread(self.registry.names):
            try:
                live = self.registry.live(name).version
                if live is not None:
                    await self.load(f"{name}@{live}")
            except AdapterError as error:
                reasons.append(f"{name}: {error}")
        return reasons

    async def _swap(self, version: AdapterVersion) -> None:
        before = self._live.get(version.name)
        if before == version.id:
            return
        await self._ensure(version)
        # The disk first: a server that dies in between restores what it was asked for.
        await asyncio.to_thread(self.registry.set_live, version.name, version.version)
        self._live[version.name] = version.id
        if before is not None:
            self.swaps += 1
            self._on_swap(version.name)
            self._retire(before)

    async def _ensure(self, version: AdapterVersion) -> None:
        """Have ``version`` in the engine, validated; one on its way out is called back."""
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
            await self._declared.add(version.id)
            stamp = version.stamp()
            verified = await asyncio.to_thread(version.verify, self.base, self._limits.max_rank)
            await self._engine.load(version.id, str(version.folder))
            if version.stamp() != stamp:  # the engine read the files after they were verified
                await self._engine.unload(version.id)
                raise AdapterError(f"{version.folder}: changed on disk while it was loaded; it was unloaded again")
        except (AdapterError, OSError):
            await self._declared.discard(version.id)
            raise
        entry = Loaded(version, verified)
        entry.idle.set()
        self._loaded[version.id] = entry

    def _retire(self, model: str) -> asyncio.Task[None]:
        entry = self._loaded[model]
        entry.retiring = True
        task = asyncio.create_task(self._unload_when_idle(model, entry))
        self._retirements.add(task)
        task.add_done_callback(self._retirements.discard)
        return task

    async def _unload_when_idle(self, model: str, entry: Loaded) -> None:
        await entry.idle.wait()
        # It may have been called back since; if it retired again with new requests, a later task waits for those.
        if not entry.retiring or entry.unloading or entry.requests:
            return
        entry.unloading = True
        try:
            await self._engine.unload(model)
        finally:
            del self._loaded[model]
            entry.gone.set()
        await self._declared.discard(model)  # at once: whoever waited for it to be gone declares it after this

"""The adapters of one running server: the version that each name means, and how it is changed while requests use it.

A swap never changes a version in use: the new version is loaded beside the old one, then the name is switched to it,
and the old version is unloaded when its last request is done. All methods run on the server's event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from harness.core.errors import AdapterError
from serve.registry.adapter_version import AdapterInUseError, AdapterRef, AdapterVersion, UnknownAdapterError
from serve.registry.base_model import BaseModel
from serve.registry.leases import LeaseFile
from serve.registry.store import Registry
from serve.server.adapters.engine import Engine
from serve.server.adapters.loaded_versions import LoadedVersion, LoadedVersions, PoolLimits


class AdapterPool:
    """The loaded adapters of one server over one registry.

    Args:
        engine: loads and unloads the weights.
        registry: where the versions are.
        base: the served model; a request that gives its name uses no adapter.
        limits: of the engine.
        lease: lists the versions that the engine may read, so that no process deletes them.
        on_swap: called with each name that was switched to another version.

    Attributes:
        exclusive: is held while something is changed.
        asleep: whether the engine sleeps, so that nothing can be changed.
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
        self._versions = LoadedVersions(engine, base, limits, lease)
        self._live: dict[str, str] = {}
        self.exclusive = asyncio.Lock()
        self.asleep = False

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
        with entry.use():
            yield entry.version.id

    def _find_loaded(self, model: str) -> LoadedVersion:
        """Return the loaded version that a name or version id means (same errors as ``use``)."""
        entries = self._versions.entries
        entry = entries.get(self._live.get(model, model))
        if entry is None or entry.retiring:
            usable = [i for i, e in sorted(entries.items()) if not e.retiring]
            known = [self.base.name, *sorted(self._live), *usable]
            raise UnknownAdapterError(f"The model {model[:200]!r} does not exist here; known: {', '.join(known)}")
        return entry

    @property
    def live(self) -> dict[str, str]:
        """The id of each name's live version."""
        return dict(self._live)

    @property
    def loaded(self) -> dict[str, LoadedVersion]:
        """Every loaded version by id, including retiring ones."""
        return dict(self._versions.entries)

    # For administrators.

    @asynccontextmanager
    async def _changing(self) -> AsyncIterator[None]:
        """Let no other change happen while the block runs.

        Raises:
            AdapterInUseError: the engine sleeps.
        """
        async with self.exclusive:
            if self.asleep:
                raise AdapterInUseError(
                    "this server sleeps, so that adapters cannot be changed; wake it first (POST /admin/wake)"
                )
            yield

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
        async with self._changing():
            version = await asyncio.to_thread(self.registry.find, text)
            if live and (AdapterRef.parse(text).version is None or version.name not in self._live):
                await self._make_live(version)
            else:
                await self._versions.load(version)
            return version

    async def promote(self, text: str) -> AdapterVersion:
        """Make ``NAME@VERSION`` live, loading it if necessary; the previously live version is unloaded when idle.

        Raises:
            as ``load``.
        """
        if AdapterRef.parse(text).version is None:
            raise AdapterError(f"{text}: promote needs NAME@VERSION")
        async with self._changing():
            version = await asyncio.to_thread(self.registry.find, text)
            await self._make_live(version)
            return version

    async def rollback(self, name: str) -> AdapterVersion:
        """Make the previously live version of ``name`` live again (same errors as ``load``)."""
        ref = AdapterRef.parse(name)
        if ref.version is not None:
            raise AdapterError(f"{name}: rollback takes a plain NAME")
        async with self._changing():
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
        async with self._changing():
            entries = self._versions.entries
            leaving = [i for i, e in entries.items() if e.version.name == ref.name and not e.retiring]
            leaving = [i for i in leaving if ref.version is None or i == text]
            if not leaving:
                raise UnknownAdapterError(f"{text}: not loaded; loaded: {', '.join(sorted(entries)) or 'nothing'}")
            if ref.version and self._live.get(ref.name) == text:
                raise AdapterInUseError(f"{text}: is live; promote another version or unload all of {ref.name}")
            if ref.version is None and ref.name in self._live:
                # The disk first: if that fails, the name stays live and its versions loaded.
                await asyncio.to_thread(self.registry.set_live, ref.name, None)
                del self._live[ref.name]
            tasks = [self._versions.retire(i) for i in leaving]
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
        """Load a version if necessary, make it live, and retire the previously live one.

        It is written to the registry also if it is live here: another server of the registry may have changed it there.
        """
        before = self._live.get(version.name)
        await self._versions.load(version)
        # The disk first: a server that dies in between restores the requested state.
        await asyncio.to_thread(self.registry.set_live, version.name, version.version)
        if before == version.id:
            return
        self._live[version.name] = version.id
        if before is not None:
            self.swaps += 1
            self._on_swap(version.name)
            self._versions.retire(before)

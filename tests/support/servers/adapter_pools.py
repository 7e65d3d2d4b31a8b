"""Adapter pools with a fake engine."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import contextmanager

from serve.registry.adapter_version import AdapterVersion
from serve.registry.base_model import BaseModel
from serve.registry.leases import LeaseFile
from serve.registry.store import Registry
from serve.server.adapters.loaded_versions import PoolLimits
from serve.server.adapters.pool import AdapterPool
from tests.support.servers.admin_site import FakeEngine

_ports = itertools.count(9000)

Toys = tuple[Registry, BaseModel, dict[str, list[AdapterVersion]]]


def engine(pool: AdapterPool) -> FakeEngine:
    """Return the pool's engine."""
    fake = pool._versions._engine
    assert isinstance(fake, FakeEngine)
    return fake


def resolve(pool: AdapterPool, model: str) -> str:
    """Return the version that a request for ``model`` would use."""
    with pool.use(model) as version:
        return version


async def settle(pool: AdapterPool) -> None:
    """Wait until every version that can be unloaded is unloaded and no longer in the lease."""
    for _ in range(10):  # tasks that were just created start
        await asyncio.sleep(0)
    async with asyncio.timeout(10):
        while True:
            entries = pool.loaded.values()
            is_unloading = any(entry.retiring and not entry.requests for entry in entries)
            if not is_unloading and (not pool._versions._retirements or any(entry.requests for entry in entries)):
                return
            await asyncio.sleep(0.001)


@contextmanager
def new_pool(toys: Toys) -> Iterator[AdapterPool]:
    """Make a pool over the registry in which no version is live."""
    registry, base, _ = toys
    for name in "ab":
        (registry.root / name / "live.json").unlink(missing_ok=True)
    port = next(_ports)
    lease = LeaseFile(registry.root, f"http://127.0.0.1:{port}", port)
    try:
        yield AdapterPool(FakeEngine(), registry, base, PoolLimits(max_rank=8, max_loaded=4), lease)
    finally:
        lease.close()

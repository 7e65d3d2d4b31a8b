"""Loading and swapping adapters while requests use them."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from harness.core.errors import AdapterError
from serve.registry.adapter_version import AdapterInUseError, UnknownAdapterError
from serve.registry.leases import LeaseFile, running_servers
from serve.registry.store import Registry
from serve.server.adapters.loaded_versions import PoolLimits
from serve.server.adapters.pool import AdapterPool
from tests.support.models.tiny_adapters import make_adapter
from tests.support.servers.adapter_pools import Toys, engine, resolve, settle
from tests.support.servers.admin_site import FakeEngine


def test_load_makes_a_first_version_live(pool: AdapterPool, toys: Toys) -> None:
    async def scenario() -> None:
        registry, _, versions = toys
        one, two, _ = versions["a"]
        await pool.load(one.id)
        assert resolve(pool, "a") == one.id
        await pool.load(two.id)
        assert resolve(pool, "a") == one.id
        assert resolve(pool, two.id) == two.id
        assert registry.live("a").version == one.version
        assert resolve(pool, "toy-base") == "toy-base"
        assert running_servers(registry.root)[0].versions == tuple(sorted([one.id, two.id]))

    asyncio.run(scenario())


def test_a_corrected_manifest_reaches_a_server_that_has_the_version(pool: AdapterPool, toys: Toys) -> None:
    """Prompt and encoder are not part of a version, so that adding it again keeps its id."""

    async def scenario() -> None:
        _, _, versions = toys
        version = versions["a"][2]
        manifest = version.folder / "manifest.json"
        assert not manifest.exists()
        for change in (pool.load, pool.promote):
            try:
                await pool.load(version.id)
                assert pool.loaded[version.id].verified.manifest is None
                manifest.write_text('{"prompt": "compact-v0"}')
                await change(version.id)
                assert pool.loaded[version.id].verified.manifest == {"prompt": "compact-v0"}
            finally:
                manifest.unlink()
            await change(version.id)

    asyncio.run(scenario())


def test_what_is_live_here_is_written_although_another_server_changed_it(pool: AdapterPool, toys: Toys) -> None:
    async def scenario() -> None:
        registry, _, versions = toys
        one, two, _ = versions["a"]
        await pool.load(one.id)
        for change, name in ((pool.promote, one.id), (pool.rollback, "a")):
            registry.set_live("a", two.version)
            assert (await change(name)).id == one.id
            assert registry.live("a").version == one.version
            assert pool.live == {"a": one.id}
        assert pool.swaps == 0

    asyncio.run(scenario())


def test_load_of_a_plain_name_swaps_to_the_newest(pool: AdapterPool, toys: Toys) -> None:
    async def scenario() -> None:
        _, _, versions = toys
        await pool.load(versions["a"][0].id)
        newest = toys[0].find("a")
        assert (await pool.load("a")).id == newest.id == resolve(pool, "a")
        await settle(pool)
        assert engine(pool).models == {newest.id}

    asyncio.run(scenario())


def test_a_swap_waits_for_requests_in_flight(pool: AdapterPool, toys: Toys) -> None:
    async def scenario() -> None:
        one, two, _ = toys[2]["a"]
        await pool.load(one.id)
        with pool.use("a") as used:
            assert used == one.id
            await pool.promote(two.id)
            assert resolve(pool, "a") == two.id
            await settle(pool)
            assert engine(pool).models == {one.id, two.id}
            with pytest.raises(UnknownAdapterError, match=two.id):
                resolve(pool, one.id)
        await settle(pool)
        assert engine(pool).models == {two.id}
        assert pool.swaps == 1

    asyncio.run(scenario())


def test_rollback_keeps_a_draining_version_loaded(pool: AdapterPool, toys: Toys) -> None:
    async def scenario() -> None:
        one, two, _ = toys[2]["a"]
        await pool.load(one.id)
        with pool.use("a"):
            await pool.promote(two.id)
            await pool.rollback("a")
            assert resolve(pool, "a") == one.id
        await settle(pool)
        assert engine(pool).models == {one.id}
        assert resolve(pool, "a") == one.id

    asyncio.run(scenario())


def test_a_version_that_retires_again_waits_for_its_new_requests(pool: AdapterPool, toys: Toys) -> None:
    """It retires again after its last request ended, but before the task that waited for that has run."""

    async def scenario() -> None:
        one = toys[2]["a"][0]
        await pool.load(one.id, live=False)
        first = pool.use(one.id)
        first.__enter__()
        pool._versions.retire(one.id)
        await settle(pool)
        first.__exit__(None, None, None)
        with pytest.raises(StopIteration):
            pool._versions.load(one).send(None)
        with pool.use(one.id):
            pool._versions.retire(one.id)
            await settle(pool)
            assert engine(pool).models == {one.id}
        await settle(pool)
        assert engine(pool).models == set()

    asyncio.run(scenario())


def test_unload_of_a_name_waits_and_survives_a_restart(pool: AdapterPool, toys: Toys) -> None:
    async def scenario() -> None:
        one, two, _ = toys[2]["a"]
        await pool.load(one.id)
        await pool.load(two.id)
        with pytest.raises(AdapterInUseError, match="is live"):
            await pool.unload(one.id)
        held = pool.use("a")
        held.__enter__()
        task = asyncio.create_task(pool.unload("a"))
        async with asyncio.timeout(10):
            while not pool.loaded[one.id].retiring:
                await asyncio.sleep(0.001)
        await settle(pool)
        assert not task.done()
        held.__exit__(None, None, None)
        assert sorted(await task) == sorted([one.id, two.id])
        assert engine(pool).models == set()
        with pytest.raises(UnknownAdapterError, match=r"'a' does not exist here; known: toy-base$"):
            resolve(pool, "a")
        with pytest.raises(UnknownAdapterError, match="not loaded"):
            await pool.unload("a")
        assert await pool.restore() == []
        assert engine(pool).models == set()

    asyncio.run(scenario())


def test_a_failed_write_switches_no_name(pool: AdapterPool, toys: Toys) -> None:
    registry, _, versions = toys
    one, two, _ = versions["a"]
    in_the_way = registry.root / "a" / f".live-{os.getpid()}.json"  # where live.json is written before it is renamed

    async def scenario() -> None:
        await pool.load(one.id)
        await pool.load(two.id)
        in_the_way.mkdir()
        for change in (pool.unload("a"), pool.promote(two.id)):
            with pytest.raises(OSError, match="directory"):
                await change
            assert resolve(pool, "a") == one.id
            assert {one.id, two.id} <= engine(pool).models
            assert registry.live("a").version == one.version
        in_the_way.rmdir()
        assert sorted(await pool.unload("a")) == sorted([one.id, two.id])
        with pytest.raises(UnknownAdapterError):
            resolve(pool, "a")

    try:
        asyncio.run(scenario())
    finally:
        if in_the_way.exists():
            in_the_way.rmdir()


def test_restore_loads_live_versions_and_reports_failures(pool: AdapterPool, toys: Toys) -> None:
    async def scenario() -> None:
        registry, _, versions = toys
        registry.set_live("a", versions["a"][1].version)
        registry.set_live("b", "0" * 12)
        (reason,) = await pool.restore()
        assert pool.live == {"a": versions["a"][1].id}
        assert reason.startswith("b: b@000000000000: not in the registry")

    asyncio.run(scenario())


def test_a_refused_load_leaves_nothing_behind(pool: AdapterPool, toys: Toys) -> None:
    async def scenario() -> None:
        one = toys[2]["a"][0]
        engine(pool).refuse = one.id
        with pytest.raises(AdapterError, match="the engine says no"):
            await pool.load(one.id)
        assert pool.loaded == {}
        assert running_servers(toys[0].root)[0].versions == ()
        engine(pool).refuse = ""
        await pool.load(one.id)
        with pytest.raises(UnknownAdapterError):
            await pool.load("nobody")
        with pytest.raises(AdapterError, match="needs NAME@VERSION"):
            await pool.promote("a")
        with pytest.raises(UnknownAdapterError, match="no earlier version"):
            await pool.rollback("a")

    asyncio.run(scenario())


def test_a_load_beyond_the_limit_is_refused(pool: AdapterPool, toys: Toys) -> None:
    async def scenario() -> None:
        everything = [v.id for name in "ab" for v in toys[2][name]]
        for model in everything[:4]:
            await pool.load(model)
        with pytest.raises(AdapterInUseError, match="holds its 4 adapters already"):
            await pool.load(everything[4])

    asyncio.run(scenario())


def test_an_adapter_cannot_take_the_name_of_the_base(toys: Toys, tmp_path: Path) -> None:
    registry = Registry(tmp_path / "adapters")
    registry.add("toy-base", make_adapter(tmp_path / "a"))
    lease = LeaseFile(registry.root, "http://127.0.0.1:9", 9)
    pool = AdapterPool(FakeEngine(), registry, toys[1], PoolLimits(8, 4), lease)
    with pytest.raises(AdapterInUseError, match="the base model has this name"):
        asyncio.run(pool.load("toy-base"))
    lease.close()

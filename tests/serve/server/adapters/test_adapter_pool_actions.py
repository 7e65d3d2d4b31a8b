"""Any sequence of loads, swaps and requests: a version in use stays loaded."""

from __future__ import annotations

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from harness.core.errors import AdapterError
from serve.registry.adapter_version import UnknownAdapterError
from serve.registry.leases import running_servers
from serve.server.adapters.pool import AdapterPool
from tests.support.servers.adapter_pools import Toys, engine, new_pool, settle

ACTIONS = st.tuples(st.sampled_from(["load", "promote", "rollback", "unload", "use", "done"]), st.integers(0, 5))


@settings(max_examples=30, deadline=None)
@given(st.lists(ACTIONS, max_size=25))
def test_a_version_in_use_stays_loaded_under_any_actions(toys: Toys, actions: list[tuple[str, int]]) -> None:
    registry, _, versions = toys
    everything = [v for name in "ab" for v in versions[name]]

    async def scenario(pool: AdapterPool) -> None:
        held = []
        tasks = []
        for action, pick in actions:
            version = everything[pick]
            if action == "use":
                try:
                    use = pool.use((version.id, version.name)[pick % 2])
                    held.append((use, use.__enter__()))
                except UnknownAdapterError:
                    pass
            elif action == "done" and held:
                held.pop(pick % len(held))[0].__exit__(None, None, None)
            elif action in ("load", "promote"):
                tasks.append(asyncio.create_task(getattr(pool, action)(version.id)))
            elif action in ("rollback", "unload"):
                tasks.append(asyncio.create_task(getattr(pool, action)(version.name)))
            await asyncio.sleep(0.002 if pick == 0 else 0)
            assert {model for _, model in held} <= engine(pool).models
            assert set(pool.live.values()) <= engine(pool).models
        for use, _ in held:
            use.__exit__(None, None, None)
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            assert not isinstance(result, BaseException) or isinstance(result, AdapterError), result
        await settle(pool)
        assert set(pool.loaded) == engine(pool).models
        assert {name: registry.find(model).version for name, model in pool.live.items()} == {
            name: live for name in "ab" if (live := registry.live(name).version)
        }
        assert set(running_servers(registry.root)[0].versions) == engine(pool).models

    with new_pool(toys) as pool:
        asyncio.run(scenario(pool))

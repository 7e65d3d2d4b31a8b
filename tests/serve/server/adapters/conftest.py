"""A registry of two toy adapters, and a pool over it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from serve.registry.base_model import BaseModel
from serve.registry.store import Registry
from serve.server.adapters.pool import AdapterPool
from tests.support.models.tiny_adapters import make_adapter, make_base
from tests.support.servers.adapter_pools import Toys, new_pool


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Toys:
    """Two names of three versions each."""
    root = tmp_path_factory.mktemp("pool")
    base = BaseModel.open(make_base(root / "toy-base"))
    registry = Registry(root / "adapters")
    versions = {
        name: [registry.add(name, make_adapter(root / f"{name}{i}", seed=i + 3 * at), base) for i in range(3)]
        for at, name in enumerate("ab")
    }
    return registry, base, versions


@pytest.fixture
def pool(toys: Toys) -> Iterator[AdapterPool]:
    """A pool over the registry in which no version is live."""
    with new_pool(toys) as pool:
        yield pool

"""The shared server, and the state in which each test finds it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from serve.launch.process import Server, serving
from serve.registry.store import Registry
from tests.serving.world import World
from tests.support.vllm.dtypes import SERVE_OPTIONS

SECRET = "hf_tokenThatNobodyMaySee"
CARELESS = {
    "VLLM_SERVER_DEV_MODE": "1",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
    "HF_TOKEN": SECRET,
}
"""Variables with which vLLM opens its developers' routes and loads adapters by path; our middleware refuses both."""


@dataclass(frozen=True)
class Site:
    """A running server and its registry. It computes two adapters at a time and has four adapter names."""

    world: World
    server: Server
    registry: Registry

    @property
    def url(self) -> str:
        """Its address."""
        return self.server.url


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World.make(tmp_path_factory.mktemp("world"))


@contextmanager
def own_threads() -> Iterator[pytest.MonkeyPatch]:
    """Let servers started in this block use all cores; servers of other tests have one thread each."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("OMP_NUM_THREADS", "VLLM_CPU_OMP_THREADS_BIND"):
            patch.delenv(name, raising=False)
        yield patch


@pytest.fixture(scope="package")
def shared_site(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    root = tmp_path_factory.mktemp("serve")
    registry = Registry(root / "adapters")
    options: dict[str, Any] = {**SERVE_OPTIONS, "max_loras": 2, "max_lora_rank": 16, "kv_cache_gib": 0.5}
    with own_threads() as patch:
        for name, value in CARELESS.items():
            patch.setenv(name, value)
        with serving(world.model, registry.root, log=root / "log", **options) as server:
            yield Site(world, server, registry)


@pytest.fixture
def site(shared_site: Site) -> Site:
    """The shared server, with a1, b1, c1 and d1 live."""
    shared_site.world.publish(shared_site.registry)  # the first time: added while it serves, and loaded by hot-swap
    shared_site.world.set_live(shared_site.url, "a1", "b1", "c1", "d1")
    return shared_site

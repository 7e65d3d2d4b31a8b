"""Adapters swapped continuously under ten thousand requests to a real vLLM, while their files are replaced."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event

import pytest

from harness.core.errors import ArcBenchError
from serve.client import admin
from serve.launch.process import serving
from serve.registry.store import Registry
from tests.faults.matrix import count_cases
from tests.serving.conftest import Site
from tests.serving.load import swap_under_load
from tests.serving.world import BASE, PROMPTS, World, ask
from tests.support.commands import wait_until
from tests.support.vllm.dtypes import SERVE_OPTIONS

pytestmark = pytest.mark.long

REQUESTS = 10_000
FILES = ("adapter_config.json", "adapter_model.safetensors")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Start a real server with two adapter slots and four adapters."""
    root = tmp_path_factory.mktemp("swapping")
    world, registry = World.make(root), Registry(root / "adapters")
    world.publish(registry)
    options = {**SERVE_OPTIONS, "max_loras": 2, "max_lora_rank": 16, "kv_cache_gib": 0.5}
    with serving(world.model, registry.root, log=root / "log", **options) as server:
        world.set_live(server.url, "a1", "b1", "c1", "d1")
        yield Site(world, server, registry)


def test_ten_thousand_requests_during_continuous_swapping(site: Site) -> None:
    """Of 10,000 requests during continuous swapping none is lost, and none is answered by another adapter."""
    outcome = swap_under_load(site.world, site.url, REQUESTS, 32)
    print(outcome)
    assert outcome.wrong == []
    assert outcome.requests >= REQUESTS
    assert outcome.swaps > 80
    count_cases(outcome.swaps)


def loaded(url: str) -> set[str]:
    """Return the versions that the engine has loaded, and those of them that wait for their last request."""
    rows = [row for adapter in admin.list_adapters(url)["adapters"] for row in adapter["versions"]]
    return {row["id"] for row in rows if row["state"] != "registered"}


@contextmanager
def replaced_files(site: Site, name: str, by: str) -> Iterator[None]:
    """While the block runs, one version's files in the registry are those of another version."""
    folder, other = (site.registry.root / site.world.ids[one].replace("@", "/") for one in (name, by))
    keep = site.registry.root / f".kept-{name}"
    shutil.copytree(folder, keep)
    for file in FILES:
        (folder / file).unlink()
        shutil.copyfile(other / file, folder / file)
    yield
    shutil.rmtree(folder)
    shutil.move(keep, folder)


def test_files_replaced_under_load(site: Site) -> None:
    """Files of adapters in use are replaced on disk: loaded adapters stay right, and a reload is refused."""
    world, done = site.world, Event()
    seen: list[tuple[str, int, list[int]]] = []

    def traffic(worker: int) -> None:
        for i in range(worker, 10**9):
            if done.is_set():
                return
            at = i % len(PROMPTS)
            model, tokens = ask(site.url, ("a", "b", BASE, world.ids["d1"])[i % 4], PROMPTS[at])
            seen.append((model, at, tokens))

    world.set_live(site.url, "a1", "b1")
    with ThreadPoolExecutor(16) as threads:
        running = [threads.submit(traffic, worker) for worker in range(16)]
        try:
            for live, other in (("a1", "b2"), ("b1", "a2")) * 4:
                name, enough = live[0], len(seen) + 100
                with replaced_files(site, live, other):
                    wait_until(lambda n=enough: len(seen) >= n or any(one.done() for one in running), seconds=300)
                    world.set_live(site.url, f"{name}2")
                    wait_until(lambda gone=world.ids[live]: gone not in loaded(site.url))
                    changes = ((admin.promote, world.ids[live]), (admin.load, world.ids[live]), (admin.rollback, name))
                    for change, adapter in changes:
                        with pytest.raises(ArcBenchError, match="changed since it was added"):
                            change(site.url, adapter)
                        count_cases()
                world.set_live(site.url, live)
        finally:
            done.set()
        for future in running:
            future.result()
    assert world.wrong(seen) == []
    assert {world.ids[name] for name in ("a1", "a2", "b1", "b2")} <= {model for model, *_ in seen}
    print(f"{len(seen)} requests while files were replaced")

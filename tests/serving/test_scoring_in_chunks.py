"""/arc/score on a server that computes long prompts in several steps and has few cache blocks."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from serve.launch.process import Server, serving
from serve.registry.store import Registry
from tests.serving.conftest import own_threads
from tests.serving.test_scoring import assert_as_peft, block_size, lengths, score, tokens
from tests.serving.world import BASE, World, figure
from tests.support.vllm.dtypes import SERVE_OPTIONS

pytestmark = pytest.mark.slow

OPTIONS = ("--enable-chunked-prefill", "--max-num-batched-tokens", "200", "--max-num-seqs", "16")


@pytest.fixture(scope="module")
def server(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("chunks")
    registry = Registry(root / "adapters")
    world.publish(registry)
    for name in ("a1", "b1"):
        registry.set_live(name[0], world.ids[name].partition("@")[2])
    # Some 25 blocks of 128 tokens: answers in flight are preempted, and cached blocks are evicted.
    options: dict[str, Any] = {**SERVE_OPTIONS, "max_loras": 2, "max_lora_rank": 16, "kv_cache_gib": 0.01}
    with own_threads(), serving(world.model, registry.root, log=root / "log", extra=OPTIONS, **options) as running:
        yield running


def test_chunks_preemption_and_eviction_change_no_score(world: World, server: Server) -> None:
    block = block_size(server.url)
    folders: dict[str, Path | None] = {BASE: None, "a": world.folders["a1"], "b": world.folders["b1"]}
    items = [(tokens("chunk", n, count=n), [tokens("end", n, i, count=150 + i) for i in range(3)]) for n in
             (*lengths(block), 900)]  # fmt: skip
    with ThreadPoolExecutor(6) as threads:
        replies = [(model, threads.submit(score, server.url, model, items)) for model in folders for _ in range(2)]
        for model, reply in replies:
            assert_as_peft(world.model, folders[model], items, reply.result())
    print("preemptions:", figure(server.url, "vllm:num_preemptions_total"))

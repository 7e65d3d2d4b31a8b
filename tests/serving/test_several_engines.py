"""Several engines behind one address: swaps under load, with every answer compared with PEFT's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from serve.launch.machine import detect_machine
from serve.launch.process import serving
from serve.registry.store import Registry
from tests.serving.conftest import own_threads
from tests.serving.load import swap_under_load
from tests.serving.test_scoring import assert_as_peft, score, tokens
from tests.serving.world import World, figure
from tests.support.vllm.dtypes import SERVE_OPTIONS

pytestmark = pytest.mark.long


def test_swaps_under_load_reach_both_engines(world: World, tmp_path: Path) -> None:
    """No request is lost or answered by another version, whichever engine computes it; scores are PEFT's too."""
    machine = detect_machine()
    if machine.device == "cuda" and len(machine.gpus or ()) < 2:
        pytest.skip("two engines need two GPUs")
    registry = Registry(tmp_path / "adapters")
    options: dict[str, Any] = {**SERVE_OPTIONS, "max_loras": 2, "max_lora_rank": 16, "kv_cache_gib": 0.5}
    log = tmp_path / "log"
    with own_threads(), serving(world.model, registry.root, log=log, data_parallel_size=2, **options) as server:
        world.publish(registry)
        world.set_live(server.url, "a1", "b1", "c1", "d1")
        outcome = swap_under_load(world, server.url, 300, 16)
        prompts = [
            (prompt, [[3, 4, 5], [3, 6]]) for n in (1, 150, 300, 301) if (prompt := tokens("engines", n, count=n))
        ]
        world.set_live(server.url, "a1", "b1")
        for name in ("a", "b"):
            for _ in range(2):  # the second time from the caches
                assert_as_peft(world.model, world.folders[f"{name}1"], prompts, score(server.url, name, prompts))
        answered = [figure(server.url, "vllm:request_success_total", f'engine="{engine}"') for engine in (0, 1)]
    print(outcome, answered)
    assert outcome.wrong == []
    assert outcome.swaps > 4
    assert min(answered) > 0.1 * sum(answered)

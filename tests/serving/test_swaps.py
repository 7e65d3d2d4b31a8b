"""Swaps under load, and turns for more adapters than the engine computes at once."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import pytest

from serve.client import admin
from tests.serving.conftest import Site
from tests.serving.load import swap_under_load
from tests.serving.world import BASE, PROMPTS, ask

pytestmark = pytest.mark.slow


def test_swaps_under_load_lose_and_mix_nothing(site: Site) -> None:
    before = admin.list_adapters(site.url)["swaps"]
    outcome = swap_under_load(site.world, site.url, 300, 16)
    assert outcome.wrong == []
    assert set(outcome.by_model) == {BASE, *(site.world.ids[name] for name in ("a1", "a2", "b1", "b2", "d1"))}
    assert outcome.swaps > 4
    assert admin.list_adapters(site.url)["swaps"] == before + outcome.swaps


def test_cold_adapters_do_not_starve_behind_two_busy_ones(site: Site) -> None:
    """The engine computes two adapters. c and d get a request now and then while a and b have eight each in flight."""
    done = Event()
    hot: dict[str, list[float]] = {"a": [], "b": []}

    def busy(model: str) -> None:
        while not done.is_set():
            started = time.monotonic()
            ask(site.url, model, PROMPTS[0], max_tokens=60)
            hot[model].append(time.monotonic() - started)

    def cold(model: str) -> list[float]:
        waits = []
        for at in range(6):
            started = time.monotonic()
            assert site.world.is_right(site.world.ids[f"{model}1"], at, ask(site.url, model, PROMPTS[at])[1])
            waits.append(time.monotonic() - started)
        return waits

    with ThreadPoolExecutor(18) as threads:
        running = [threads.submit(busy, model) for model in ("a", "b") * 8]
        try:
            futures = {model: threads.submit(cold, model) for model in "cd"}
            waits = {model: future.result() for model, future in futures.items()}
        finally:
            done.set()
        for future in running:
            future.result()
    summary = "; ".join(f"{model} {', '.join(f'{wait:.2f}' for wait in waits[model])} s" for model in waits)
    print(f"cold adapters answered after {summary}, while a and b answered {list(map(len, hot.values()))}")
    # A turn of a second for each, and what is in flight when it ends; without turns they wait until a and b are done.
    assert max(map(max, waits.values())) < 2 + 2 * max(map(max, hot.values()))

"""Many requests in flight while adapters are swapped."""

from __future__ import annotations

import itertools
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Event

from serve.client import admin
from tests.serving.world import BASE, PROMPTS, World, ask

ASKED = ("a", BASE, "b", "d", "a")


@dataclass(frozen=True)
class Outcome:
    """What was answered: how often by which version, which answers were wrong, and how much was changed meanwhile."""

    by_model: Counter[str]
    wrong: list[tuple[str, int]]
    swaps: int
    reloads: int

    @property
    def requests(self) -> int:
        """All of them; a request that fails ends the test by itself."""
        return sum(self.by_model.values())

    def __str__(self) -> str:
        shares = ", ".join(f"{model} {count}" for model, count in sorted(self.by_model.items()))
        return (
            f"{self.requests} requests during {self.swaps} swaps and {self.reloads} reloads: 0 failed, "
            f"{len(self.wrong)} wrong ({shares})"
        )


def swap_under_load(world: World, url: str, requests: int, in_flight: int) -> Outcome:
    """Promote, roll back, unload and load without a pause until ``requests`` are answered, and one by each version.

    Three adapters and the base are asked; a and b are swapped between two versions each, c is unloaded and loaded.
    A version is live for so short a time that on a slow machine none of 300 answers may be its own: then more are
    asked for, ten times as many at most.
    """
    done = Event()
    seen: list[tuple[str, int, list[int]]] = []

    def traffic(worker: int) -> None:
        for i in itertools.count(worker):
            if done.is_set():
                return
            at = i % len(PROMPTS)
            model, tokens = ask(url, ASKED[i % len(ASKED)], PROMPTS[at])
            seen.append((model, at, tokens))

    versions = {BASE, *(world.ids[name] for name in ("a1", "a2", "b1", "b2", "d1"))}

    def enough() -> bool:
        by_all = versions <= {model for model, *_ in seen}
        return len(seen) >= (requests if by_all else 10 * requests)

    rounds = 0
    with ThreadPoolExecutor(in_flight) as threads:
        running = [threads.submit(traffic, worker) for worker in range(in_flight)]
        try:
            while not enough() and not any(future.done() for future in running):
                for name in ("a2", "b2"):
                    admin.promote(url, world.ids[name])
                admin.unload(url, "c")
                for name in ("a", "b"):
                    admin.rollback(url, name)
                admin.load(url, "c")
                rounds += 1
        finally:
            done.set()
        for future in running:
            future.result()
    return Outcome(Counter(model for model, *_ in seen), world.wrong(seen), 4 * rounds, rounds)

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
    """Which versions answered how often, the wrong answers, and the number of changes meanwhile."""

    by_model: Counter[str]
    wrong: list[tuple[str, int]]
    swaps: int
    reloads: int

    @property
    def requests(self) -> int:
        """All answered requests; a failed request ends the test."""
        return sum(self.by_model.values())

    def __str__(self) -> str:
        shares = ", ".join(f"{model} {count}" for model, count in sorted(self.by_model.items()))
        return (
            f"{self.requests} requests during {self.swaps} swaps and {self.reloads} reloads: 0 failed, "
            f"{len(self.wrong)} wrong ({shares})"
        )


def swap_under_load(world: World, url: str, requests: int, in_flight: int) -> Outcome:
    """Promote, roll back, unload and load in a loop until ``requests`` are answered, at least one by each version.

    Requests go to three adapters and the base. a and b are swapped between two versions each, c is unloaded and loaded.
    A version is live so briefly that on a slow machine it may answer none of 300 requests; then up to ten times as many
    are sent.
    """
    done = Event()
    answers: list[tuple[str, int, list[int]]] = []

    def traffic(worker: int) -> None:
        for i in itertools.count(worker):
            if done.is_set():
                return
            at = i % len(PROMPTS)
            model, tokens = ask(url, ASKED[i % len(ASKED)], PROMPTS[at])
            answers.append((model, at, tokens))

    versions = {BASE, *(world.ids[name] for name in ("a1", "a2", "b1", "b2", "d1"))}

    def enough() -> bool:
        by_all = versions <= {model for model, *_ in answers}
        return len(answers) >= (requests if by_all else 10 * requests)

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
    return Outcome(Counter(model for model, *_ in answers), world.wrong(answers), 4 * rounds, rounds)

"""Swapping adapters, and throughput with many of them: this server against a plain vLLM.

    python -m benchmarks.hot_swap [--quick] [--repeats N] [--minutes M]

Three servers of the tiny base run at once and are measured in turns, in changing order: ours, a plain vLLM with LoRA
and its own load route (none of our plugins), and a plain vLLM of the base alone. What is measured is kept in
``--work``, so that the same command goes on where it stopped. Writes benchmarks/hot_swap.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from aiohttp import ClientError

from benchmarks.swapping.adapters import NAMES, Adapters, make_adapters
from benchmarks.swapping.contestants import Contestant, contestants
from benchmarks.swapping.page import write_page
from benchmarks.swapping.traffic import Line, first_tokens, swaps_under_load, throughput

ADAPTERS = (0, 1, 4, 16)
"""How many adapters take turns in a throughput measurement; 0 for the base."""
REGISTERED = (2, 8, 32)
"""How many adapters are loaded while one of them is swapped."""


class Died(Exception):
    """A contestant's server has died of what was asked of it; that is recorded as what was measured."""


class Store:
    """Measurements by what was measured, one line each; nothing new is begun once the time is over."""

    def __init__(self, work: Path, minutes: float) -> None:
        work.mkdir(parents=True, exist_ok=True)
        self.path = work / "measurements.jsonl"
        self._end = time.monotonic() + 60 * minutes
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        self.known: dict[str, Line] = {line["key"]: line for line in map(json.loads, lines)}

    def get(self, key: str, measure: Callable[[], Line]) -> None:
        """Measure what is not known under ``key``."""
        if key in self.known or time.monotonic() > self._end:
            return
        died: OSError | ClientError | None = None
        try:
            line = {"key": key, **measure()}
        except (OSError, ClientError) as error:
            line, died = {"key": key, "died": True}, error
        print(json.dumps(line), file=sys.stderr, flush=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        self.known[key] = line
        if died is not None:
            raise Died(key) from died


def keys(repeats: int) -> list[str]:
    """Everything that is to be measured."""
    found = []
    for repeat in range(repeats):
        for many in ADAPTERS:
            found += [f"throughput {name} {many} {repeat}" for name in ("ours", "stock", "base")[: 2 if many else 3]]
        for many in REGISTERED:
            found += [f"first {name} {many} {repeat}" for name in ("ours", "stock")]
            ways = (("ours", "promote"), ("stock", "unload, then load"), ("stock", "load in place"))
            found += [f"swap {name} {many} {repeat} {way}" for name, way in ways]
    return found


def measure_all(store: Store, work: Path, repeats: int, quick: bool) -> None:
    """Start the servers and measure what is missing."""
    adapters = make_adapters(work)
    with contestants(adapters, work) as servers:
        for name in ("ours", "stock"):
            for key in NAMES[1 if name == "stock" else 0 :]:
                servers[name].load(key)
        for repeat in range(repeats):
            turn = ["ours", "stock", "base"]
            turn = turn[repeat % 3 :] + turn[: repeat % 3]
            for many in ADAPTERS:
                for name in turn if many == 0 else [name for name in turn if name != "base"]:
                    measure_throughput(store, servers[name], many, repeat, 32 if quick else 192)
            for many in REGISTERED:
                for name in [name for name in turn if name != "base"]:
                    measure_swaps(store, servers[name], adapters, many, repeat, 4 if quick else 16)
        for name, server in servers.items():
            store.get(f"memory {name} {time.time():.0f}", partial(peak, server))


def peak(server: Contestant) -> Line:
    """Peak memory of a contestant."""
    return {"mib": server.peak_memory()}


def measure_swaps(store: Store, server: Contestant, adapters: Adapters, many: int, repeat: int, swaps: int) -> None:
    """One contestant with so many adapters, once: loads on an idle server, and each way to swap under load."""
    names, run = list(NAMES[:many]), f"{server.name} {many} {repeat}"
    store.get(f"first {run}", partial(first_tokens, server, names, (2, many, repeat)))
    for way in server.swaps:
        store.get(f"swap {run} {way}", partial(swaps_under_load, server, way, adapters, names, swaps))


def measure_throughput(store: Store, server: Contestant, many: int, repeat: int, count: int) -> None:
    """One contestant with so many adapters, once."""
    names, run = list(NAMES[:many]), f"{server.name} {many} {repeat}"
    store.get(f"throughput {run}", partial(throughput, server, names, count, (1, many, repeat)))


def main() -> int:
    """Measure what is missing and write the page once nothing is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short repetition; prints and writes no page")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no measurement after this time")
    parser.add_argument("--work", type=Path, default=None, help="where measurements are kept")
    options = parser.parse_args()
    repeats = 1 if options.quick else options.repeats
    work = options.work or Path("runs/benchmark-hot-swap" + ("-quick" if options.quick else ""))
    store = Store(work, options.minutes)
    while any(key not in store.known for key in keys(repeats)):
        try:
            measure_all(store, work, repeats, options.quick)
        except Died as death:
            print(f"a server died: {death}; all are started anew", file=sys.stderr)
        else:
            break
    if missing := [key for key in keys(repeats) if key not in store.known]:
        print(f"{len(missing)} measurements are missing; the same command goes on")
        return 0
    page = write_page(store.known, repeats, ADAPTERS, REGISTERED)
    print(page)
    if not options.quick:
        Path(__file__).with_suffix(".md").write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

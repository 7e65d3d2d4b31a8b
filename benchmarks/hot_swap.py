"""Swapping adapters, and throughput with many of them: this server against a plain vLLM.

    python -m benchmarks.hot_swap [--quick]

Three servers of the tiny base run at once and are measured in turns, in changing order: ours, a plain vLLM with LoRA
and its own load route (none of our plugins), and a plain vLLM of the base alone. Writes benchmarks/hot_swap.md.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

from aiohttp import ClientError

from benchmarks.common.entry import finish, open_store, parser, repetitions, work_folder
from benchmarks.common.findings import Finding, Growth
from benchmarks.common.store import Line, Nothing, Store
from benchmarks.swapping.adapters import NAMES, Adapters, make_adapters
from benchmarks.swapping.contestants import Contestant, contestants
from benchmarks.swapping.page import write_page
from benchmarks.swapping.traffic import first_tokens, swaps_under_load, throughput

ADAPTERS = (0, 1, 4, 16)
"""How many adapters take turns in a throughput measurement; 0 for the base."""
REGISTERED = (2, 8, 32)
"""How many adapters are loaded while one of them is swapped."""


class Died(Exception):
    """A contestant's server has died of what was asked of it; that is recorded as what was measured."""


def get(store: Store, key: str, measure: Callable[[], Line]) -> None:
    """Measure what is not known under ``key``; the death of a server is a measurement, after which all start anew."""
    try:
        store.get(key, measure)
    except (OSError, ClientError) as error:
        store.put(key, {"died": True})
        raise Died(key) from error


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
                    measure_throughput(store, servers[name], many, repeat, 32 if quick else 576)
            for many in REGISTERED:
                for name in [name for name in turn if name != "base"]:
                    measure_swaps(store, servers[name], adapters, many, repeat, 4 if quick else 16)
        for name, server in servers.items():
            get(store, f"memory {name} {time.time():.0f}", partial(peak, server))


def peak(server: Contestant) -> Line:
    """Peak memory of a contestant."""
    return {"mib": server.peak_memory()}


def measure_swaps(store: Store, server: Contestant, adapters: Adapters, many: int, repeat: int, swaps: int) -> None:
    """One contestant with so many adapters, once: loads on an idle server, and each way to swap under load."""
    names, run = list(NAMES[:many]), f"{server.name} {many} {repeat}"
    get(store, f"first {run}", partial(first_tokens, server, names, (2, many, repeat)))
    for way in server.swaps:
        get(store, f"swap {run} {way}", partial(swaps_under_load, server, way, adapters, names, swaps))


def measure_throughput(store: Store, server: Contestant, many: int, repeat: int, count: int) -> None:
    """One contestant with so many adapters, once."""
    names, run = list(NAMES[:many]), f"{server.name} {many} {repeat}"
    get(store, f"throughput {run}", partial(throughput, server, names, count, (1, many, repeat)))


def lost(store: Store, side: str, way: str, repeats: int) -> tuple[float, ...]:
    """Requests that failed or were answered by another model than was asked for, by repetition."""
    lines = [store.known[f"swap {side} {i} {way}"] for i in range(repeats)]
    return tuple(float(sum(line.get(field, 0) for field in ("failed", "wrong", "wrong_base"))) for line in lines)


def findings(store: Store, repeats: int) -> tuple[list[Finding], list[Growth]]:
    """This server beside a plain vLLM."""

    def values(key: str, field: str) -> tuple[float, ...]:
        return tuple(store.known[key.format(repeat)][field] for repeat in range(repeats))

    def peak_of(name: str) -> float:
        return float(max(line["mib"] for key, line in store.known.items() if key.startswith(f"memory {name} ")))

    peer, memory = "plain vLLM", (peak_of("ours"), peak_of("stock"))
    found = []
    for many in ADAPTERS:
        what = f"throughput, {many} adapters" if many else "throughput, the base"
        sides = [values(f"throughput {name} {many} {{}}", "per_second") for name in ("ours", "stock")]
        found.append(Finding(what, "sequences/s", sides[0], peer, sides[1], more_is_better=True, memory=memory))
    for many in REGISTERED:
        sides = [
            tuple(
                map(sum, zip(*(values(f"first {name} {many} {{}}", f) for f in ("load", "first_token")), strict=True))
            )
            for name in ("ours", "stock")
        ]
        found.append(Finding(f"load and first token, {many} adapters", "s", sides[0], peer, sides[1]))
    for many in REGISTERED:
        ours = lost(store, f"ours {many}", "promote", repeats)
        for way in ("unload, then load", "load in place"):
            deaths = sum("died" in store.known[f"swap stock {many} {i} {way}"] for i in range(repeats))
            other = f"{peer}, {way}" + (f" (died {deaths} times)" if deaths else "")
            theirs = lost(store, f"stock {many}", way, repeats)
            found.append(Finding(f"failed or wrong under swaps, {many} adapters", "requests", ours, other, theirs))
    costs = (("`promote` under load", "swap ours {} {{}} promote", "swap"), ("load", "first ours {} {{}}", "load"))
    growths = [
        Growth(what, "adapters", "s", REGISTERED, tuple(median(values(key.format(many), field)) for many in REGISTERED))
        for what, key, field in costs
    ]
    return found, growths


def main() -> int:
    """Measure what is missing and write the page once nothing is."""
    options = parser(__doc__, "hot_swap", repeats=3).parse_args()
    store, repeats, work = open_store(options), repetitions(options), work_folder(options)
    while any(key not in store.known for key in keys(repeats)) or not any("memory" in key for key in store.known):
        try:
            measure_all(store, work, repeats, options.quick)
        except Died as death:
            print(f"a server died: {death}; all are started anew", file=sys.stderr)
        except Nothing:
            missing = [key for key in keys(repeats) if key not in store.known]
            print(f"{len(missing)} measurements are missing; the same command goes on")
            return 0
        else:
            break
    page = write_page(store.known, repeats, ADAPTERS, REGISTERED)
    found, growths = findings(store, repeats)
    goals = [
        f"{finding.what}: {sum(finding.ours):.0f} of ours"
        for finding in found
        if finding.unit == "requests" and sum(finding.ours)
    ]
    return finish(options, page, found, growths, goals, store.versions())


if __name__ == "__main__":
    sys.exit(main())

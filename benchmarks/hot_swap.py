"""Swapping adapters, and throughput with many adapters: this server against a plain vLLM.

    python -m benchmarks.hot_swap [--quick]

Three servers of the tiny base run at the same time and are measured in turns, in changing order: ours, a plain vLLM
with LoRA and its own load route (without our plugins), and a plain vLLM with only the base. Writes
benchmarks/hot_swap.md.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import nan
from pathlib import Path
from statistics import median

from aiohttp import ClientError

from benchmarks.common.entry import finish, open_store, parser, repetitions, work_folder
from benchmarks.common.findings import Finding, Growth
from benchmarks.common.store import Line, OutOfTimeError, Store
from benchmarks.swapping.adapters import NAMES, Adapters, make_adapters
from benchmarks.swapping.contestants import Contestant, contestants
from benchmarks.swapping.page import write_page
from benchmarks.swapping.traffic import first_tokens, swaps_under_load, throughput

WHY_BASE = (
    "not shown: the repetitions lie on both sides of 1; the middleware takes a few per cent of the API process (4 % of "
    "a profile's samples with 16 + 1 tokens)"
)
WHY = "every byte of an adapter is hashed and checked before it is loaded"
"""What a load does more than a plain vLLM's."""


@dataclass(frozen=True)
class Extent:
    """What is measured.

    Attributes:
        repeats: repetitions.
        taking_turns: how many adapters do so in a measurement of throughput; 0 for the base.
        loaded: how many adapters are, while one of them is swapped.
        requests: of a measurement of throughput.
        swaps: of a measurement under load.
        base: whether a plain vLLM of the base alone is measured too.
    """

    repeats: int
    taking_turns: tuple[int, ...] = (0, 1, 4, 16)
    loaded: tuple[int, ...] = (2, 8, 32)
    requests: int = 576
    swaps: int = 16
    base: bool = True

    @property
    def names(self) -> list[str]:
        """Return the adapters."""
        return list(NAMES[: max(*self.taking_turns, *self.loaded)])


QUICK = Extent(1, (0, 4), (2, 4), requests=32, swaps=4, base=False)


class Died(Exception):
    """A contestant's server has died of what was asked of it; that is recorded as what was measured."""


def get(store: Store, key: str, measure: Callable[[], Line]) -> None:
    """Measure what is not known under ``key``; the death of a server is a measurement, after which all start again."""
    try:
        store.get(key, measure)
    except (OSError, ClientError) as error:
        store.put(key, {"died": True})
        raise Died(key) from error


def keys(extent: Extent) -> list[str]:
    """Everything that is to be measured."""
    results = []
    for repeat in range(extent.repeats):
        for many in extent.taking_turns:
            names = ("ours", "stock", "base") if many == 0 and extent.base else ("ours", "stock")
            results += [f"throughput {name} {many} {repeat}" for name in names]
        for many in extent.loaded:
            results += [f"first {name} {many} {repeat}" for name in ("ours", "stock")]
            methods = (("ours", "promote"), ("stock", "unload, then load"), ("stock", "load in place"))
            results += [f"swap {name} {many} {repeat} {method}" for name, method in methods]
    return results


def measure_all(store: Store, work: Path, extent: Extent) -> None:
    """Start the servers and run the missing measurements."""
    adapters = make_adapters(work, extent.names)
    with contestants(adapters, work, extent.base) as servers:
        for name in ("ours", "stock"):
            for key in extent.names[1 if name == "stock" else 0 :]:
                servers[name].load(key)
        for repeat in range(extent.repeats):
            turn = list(servers)
            turn = turn[repeat % len(turn) :] + turn[: repeat % len(turn)]
            for many in extent.taking_turns:
                for name in turn if many == 0 else [name for name in turn if name != "base"]:
                    measure_throughput(store, servers[name], many, repeat, extent.requests)
            for many in extent.loaded:
                for name in [name for name in turn if name != "base"]:
                    measure_swaps(store, servers[name], adapters, many, repeat, extent.swaps)
        for name, server in servers.items():
            get(store, f"memory {name} {time.time():.0f}", partial(peak, server))


def peak(server: Contestant) -> Line:
    """Return the peak memory of a contestant."""
    return {"mib": server.peak_memory()}


def measure_swaps(store: Store, server: Contestant, adapters: Adapters, many: int, repeat: int, swaps: int) -> None:
    """Measure one contestant with this many adapters once: loads on an idle server, and each way to swap under load."""
    names, run = list(NAMES[:many]), f"{server.name} {many} {repeat}"
    get(store, f"first {run}", partial(first_tokens, server, names, (2, many, repeat)))
    for method in server.swaps:
        get(store, f"swap {run} {method}", partial(swaps_under_load, server, method, adapters, names, swaps))


def measure_throughput(store: Store, server: Contestant, many: int, repeat: int, count: int) -> None:
    """Measure the throughput of one contestant with this many adapters once."""
    names, run = list(NAMES[:many]), f"{server.name} {many} {repeat}"
    get(store, f"throughput {run}", partial(throughput, server, names, count, (1, many, repeat)))


def lost(store: Store, side: str, method: str, repeats: int) -> tuple[float, ...]:
    """Return failed or wrongly answered requests by repetition; nan if the server died."""
    lines = [store.known[f"swap {side} {i} {method}"] for i in range(repeats)]
    return tuple(float(sum(line.get(field, nan) for field in ("failed", "wrong", "wrong_base"))) for line in lines)


def findings(store: Store, extent: Extent) -> tuple[list[Finding], list[Growth]]:
    """Compare this server with a plain vLLM."""
    repeats = extent.repeats

    def values(key: str, field: str) -> tuple[float, ...]:
        return tuple(store.known[key.format(repeat)][field] for repeat in range(repeats))

    def peak_of(name: str) -> float:
        return float(max(line["mib"] for key, line in store.known.items() if key.startswith(f"memory {name} ")))

    peer, memory = "plain vLLM", (peak_of("ours"), peak_of("stock"))
    results = []
    for many in extent.taking_turns:
        what = f"throughput, {many} adapters" if many else "throughput, the base"
        sides = [values(f"throughput {name} {many} {{}}", "per_second") for name in ("ours", "stock")]
        why = "" if many else WHY_BASE
        results.append(Finding(what, "sequences/s", sides[0], peer, sides[1], True, memory, why=why))
    for many in extent.loaded:
        sides = [values(f"first {name} {many} {{}}", "first_token") for name in ("ours", "stock")]
        results.append(Finding(f"load and first token, {many} adapters", "s", sides[0], peer, sides[1], why=WHY))
    for many in extent.loaded:
        ours = lost(store, f"ours {many}", "promote", repeats)
        for method in ("unload, then load", "load in place"):
            deaths = sum("died" in store.known[f"swap stock {many} {i} {method}"] for i in range(repeats))
            other = f"{peer}, {method}" + (f" (died {deaths} of {repeats} times)" if deaths else "")
            theirs = lost(store, f"stock {many}", method, repeats)
            results.append(Finding(f"failed or wrong under swaps, {many} adapters", "requests", ours, other, theirs))
    costs = (
        ("`promote` under load", "swap ours {} {{}} promote", "swap"),
        ("load", "first ours {} {{}}", "load"),
        ("load and first token", "first ours {} {{}}", "first_token"),
    )
    growths = [
        Growth(what, "adapters", "s", extent.loaded, tuple(median(values(key.format(n), field)) for n in extent.loaded))
        for what, key, field in costs
    ]
    return results, growths


def main() -> int:
    """Run the missing measurements, and write the page if none is missing."""
    options = parser(__doc__, "hot_swap", repeats=3).parse_args()
    store, work = open_store(options), work_folder(options)
    extent = QUICK if options.quick else Extent(repetitions(options))
    while any(key not in store.known for key in keys(extent)) or not any("memory" in key for key in store.known):
        try:
            measure_all(store, work, extent)
        except Died as death:
            print(f"a server died: {death}; all are started again", file=sys.stderr)
        except OutOfTimeError:
            missing = [key for key in keys(extent) if key not in store.known]
            print(f"{len(missing)} measurements are missing; the same command resumes")
            return 0
        else:
            break
    page = write_page(store.known, extent.repeats, extent.taking_turns, extent.loaded)
    results, growths = findings(store, extent)
    goals = [
        f"{finding.what}: {sum(finding.ours):.0f} of ours"
        for finding in results
        if finding.unit == "requests" and sum(finding.ours)
    ]
    return finish(options, page, results, growths, goals, store.versions())


if __name__ == "__main__":
    sys.exit(main())

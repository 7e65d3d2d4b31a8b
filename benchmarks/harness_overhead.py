"""The cost of a harness without the model: CPU seconds and memory for the same requests.

    python -m benchmarks.harness_overhead [--quick] [--requests 2048]

A local server without latency, in a separate process, answers the same chats from `bench run`, lm-eval, inspect and a
bare aiohttp loop, which take turns, each in a new process. Every repetition has runs of three sizes for each side: the
cost of a request without start-up is the difference between the largest and the smallest. Writes
benchmarks/harness_overhead.md.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median

import psutil

from benchmarks.common import peers
from benchmarks.common.entry import finish, open_store, parser, repetitions, work_folder
from benchmarks.common.findings import Finding, Growth, growth_table
from benchmarks.common.peers import PACKAGES
from benchmarks.common.store import Store
from benchmarks.overhead.sides import SAMPLES, TINY_BASE, Case, launch

OURS = ("bench run", "bench run, token ids")
BARE = ("bare loop", "bare loop, log-probabilities")
GOAL = 0.4
"""CPU seconds of `bench run` for 1,000 requests, at most."""
WHY = "the loop makes no prompts and does nothing with the answers: no store, no votes, no scores"
Figures = dict[str, float]


def cpu_seconds(process: psutil.Process) -> float:
    """Return the processor time of a process and its children so far."""
    total = 0.0
    for each in [process, *process.children(recursive=True)]:
        times = each.cpu_times()
        total += times.user + times.system + times.children_user + times.children_system
    return total


def measure(side: str, case: Case, peers: Path, out: Path) -> Figures:
    """Run one side: seconds and CPU seconds in total and until its first request, and peak memory (MB)."""
    shutil.rmtree(out, ignore_errors=True)
    words = [sys.executable, "-m", "benchmarks.overhead.server"]
    if side == "bench run, token ids":
        words += ["--tokenizer", str(TINY_BASE)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        url = f"http://127.0.0.1:{server.stdout.readline().strip()}"
        chosen = launch(side, url, case, peers, out)
        start = time.perf_counter()
        with (case.folder / f"{side}.log").open("wb") as log:
            process = subprocess.Popen(
                chosen.argv, stdout=log, stderr=log, env=environment | chosen.environment, cwd=chosen.folder
            )
        first: Figures = {}

        def watch(lines: object = server.stdout) -> None:
            if next(iter(lines), ""):  # type: ignore[call-overload]
                first["wall"] = time.perf_counter() - start
                first["cpu"] = cpu_seconds(psutil.Process(process.pid))

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        watcher.join(timeout=1)
        server.stdin.close()
        sending = float(server.stdout.readline() or "nan")
    if status or not first:
        raise SystemExit(f"{side} failed; see {case.folder / f'{side}.log'}")
    return {
        "wall": wall,
        "cpu": usage.ru_utime + usage.ru_stime,
        "first_wall": first["wall"],
        "first_cpu": first["cpu"],
        "sending": sending,
        "memory": usage.ru_maxrss / 1000,
    }


def each(store: Store, side: str, sizes: Sequence[int], repeats: int) -> tuple[float, ...]:
    """Return the CPU seconds per 1,000 requests by repetition, from the smallest and the largest run."""
    small, large = sizes[0], sizes[-1]
    pairs = [(store.known[f"{side} {small} {i}"], store.known[f"{side} {large} {i}"]) for i in range(repeats)]
    return tuple(1000 * (b["cpu"] - a["cpu"]) / (large - small) for a, b in pairs)


def values(store: Store, side: str, size: int, repeats: int, field: str) -> tuple[float, ...]:
    """Return a value of a side by repetition."""
    return store.repeated(f"{side} {size}", field, repeats)


def row(store: Store, side: str, sizes: Sequence[int], repeats: int) -> list[str]:
    """Medians over the repetitions."""
    fields = ("first_cpu", "first_wall", "cpu", "sending", "memory")
    start_cpu, start_wall, whole, sending, memory = (
        median(values(store, side, sizes[-1], repeats, field)) for field in fields
    )
    cells = [f"{median(each(store, side, sizes, repeats)):.2f}", f"{start_cpu:.1f}", f"{start_wall:.1f}"]
    return [side, *cells, f"{whole:.1f}", f"{sizes[-1] / sending:,.0f}", f"{memory:.0f}"]


def page(
    store: Store, sides: Sequence[str], cases: Sequence[Case], repeats: int, tokens: float, growths: Sequence[Growth]
) -> str:
    """The page of results."""
    header = ["", "CPU s per 1,000 requests", "CPU s to the first request", "s to the first request", "CPU s in all"]
    header += ["requests/s, first to last", "peak memory (MB)"]
    sizes = [case.requests for case in cases]
    rows = [header, ["---", *["---:"] * (len(header) - 1)], *(row(store, s, sizes, repeats) for s in sides)]
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in rows)
    versions = ", ".join(package for packages in PACKAGES.values() for package in packages)
    return f"""# What the harness costs beside the model

`python -m benchmarks.harness_overhead`: {sizes[-1]:,} chats of {tokens:,.0f} tokens on average, answers of 100
tokens from a local server of no latency, {cases[-1].in_flight} in flight, {os.cpu_count()} cores, Python
{platform.python_version()}, {versions}. Medians of {repeats} repetitions
in which all sides take turns; what a request costs is the difference to a run of {sizes[0]} requests.

{table}

`bench run` augments, renders, asks for log-probabilities (which the vote needs, and which make an answer 15 times as
long; the other harnesses do not ask for them), decodes, inverts, stores durably and scores; the difference between it
and the second bare loop is all of that. As token ids, up to 16 of the {SAMPLES} prompts of a test output share a
request.

How the cost of a whole process grows with the requests:

{growth_table(growths)}
"""


def main() -> int:
    """Measure what is not known yet, and write the page."""
    arguments = parser(__doc__, "harness_overhead")
    arguments.add_argument("--requests", type=int, default=2048)
    arguments.add_argument("--in-flight", type=int, default=256)
    peers.add_option(arguments)
    options = arguments.parse_args()
    store, repeats, work = open_store(options), repetitions(options), work_folder(options)
    sizes = (64, 640) if options.quick else (64, options.requests // 2, options.requests)
    cases = [Case(work / "cases", size, options.in_flight) for size in sizes]
    tokens = [case.prepare() for case in cases][-1]
    sides = [*BARE, *OURS, *peers.present(options)]
    environments = peers.folder(options)
    for side in sides:  # once for nothing, so that environments are there and modules compiled
        if not any(key.startswith(f"{side} {sizes[0]} ") for key in store.known):
            measure(side, cases[0], environments, work / "out")
    for repeat in range(repeats):
        for turn in range(len(sides)):
            side = sides[(turn + repeat) % len(sides)]
            for case in cases:
                key = f"{side} {case.requests} {repeat}"
                store.get(key, partial(measure, side, case, environments, work / "out"))
    findings = []
    for ours in OURS:
        for peer in (BARE[1], *sides[len(BARE) + len(OURS) :]):
            memory = tuple(median(values(store, side, sizes[-1], repeats, "memory")) for side in (ours, peer))
            both = (each(store, side, sizes, repeats) for side in (ours, peer))
            findings.append(Finding(ours, "CPU s per 1,000", next(both), peer, next(both), memory=memory, why=WHY))  # type: ignore[arg-type]
    growths = [
        Growth(side, "requests", "CPU s", sizes, tuple(median(values(store, side, n, repeats, "cpu")) for n in sizes))
        for side in sides
    ]
    costs = {ours: median(each(store, ours, sizes, repeats)) for ours in OURS}
    goals = [
        f"{ours}: {cost:.2f} CPU s per 1,000, where {GOAL} is wanted" for ours, cost in costs.items() if cost > GOAL
    ]
    text = page(store, sides, cases, repeats, tokens, growths)
    return finish(options, text, findings, growths, goals, store.versions())


if __name__ == "__main__":
    sys.exit(main())

"""What a harness costs beside the model: CPU seconds and memory for the same requests, side by side.

    python -m benchmarks.harness_overhead [--quick] [--requests 2048] [--repeats 5] [--work FOLDER]

A local server of no latency (a process of its own) answers the same chats from `bench run`, lm-eval, inspect and a bare
aiohttp loop, who take turns, each in a fresh process. Every repetition has a small and a large run of each side: their
difference is what a request costs, free of start-up. What is measured is kept in ``--work``, so that the same command
goes on where it stopped. Writes benchmarks/harness_overhead.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil

from benchmarks.overhead.sides import PACKAGES, SAMPLES, TINY_BASE, Case, launch

SIDES = ("bare loop", "bare loop, log-probabilities", "bench run", "bench run, token ids", "lm-eval", "inspect")
PAGE = Path(__file__).with_suffix(".md")
Figures = dict[str, float]


def cpu_seconds(process: psutil.Process) -> float:
    """Processor time of a process and its children so far."""
    total = 0.0
    for each in [process, *process.children(recursive=True)]:
        times = each.cpu_times()
        total += times.user + times.system + times.children_user + times.children_system
    return total


def measure(side: str, case: Case, peers: Path, out: Path) -> Figures:
    """One run of a side: seconds and CPU seconds in all and until its first request, and peak memory (MB)."""
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


class Store:
    """Measurements by (side, requests, repetition), one line each."""

    def __init__(self, work: Path) -> None:
        work.mkdir(parents=True, exist_ok=True)
        self.path = work / "measurements.jsonl"
        lines = self.path.read_text(encoding="utf-8").splitlines() if self.path.exists() else []
        self.known: dict[tuple[str, int, int], Figures] = {}
        for line in map(json.loads, lines):
            self.known[line["side"], line["requests"], line["repeat"]] = line["figures"]

    def add(self, side: str, requests: int, repeat: int, figures: Figures) -> None:
        """Keep a measurement."""
        self.known[side, requests, repeat] = figures
        with self.path.open("a", encoding="utf-8") as file:
            line = {"side": side, "requests": requests, "repeat": repeat, "figures": figures}
            file.write(json.dumps(line) + "\n")


def row(store: Store, side: str, small: Case, large: Case, repeats: int) -> list[str]:
    """Medians over the repetitions; what a request costs is taken from the two runs of one repetition."""
    pairs = [(store.known[side, small.requests, i], store.known[side, large.requests, i]) for i in range(repeats)]
    more = large.requests - small.requests
    each = statistics.median(1000 * (b["cpu"] - a["cpu"]) / more for a, b in pairs)
    rate = statistics.median(large.requests / b["sending"] for _, b in pairs)
    start_cpu, start_wall, whole, memory = (
        statistics.median(b[key] for _, b in pairs) for key in ("first_cpu", "first_wall", "cpu", "memory")
    )
    return [
        side,
        f"{each:.2f}",
        f"{start_cpu:.1f}",
        f"{start_wall:.1f}",
        f"{whole:.1f}",
        f"{rate:,.0f}",
        f"{memory:.0f}",
    ]


def page(store: Store, small: Case, large: Case, repeats: int, tokens: float) -> str:
    """The page of results."""
    header = ["", "CPU s per 1,000 requests", "CPU s to the first request", "s to the first request", "CPU s in all"]
    header += ["requests/s, first to last", "peak memory (MB)"]
    rows = [header, ["---", *["---:"] * (len(header) - 1)], *(row(store, s, small, large, repeats) for s in SIDES)]
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in rows)
    versions = ", ".join(package for packages in PACKAGES.values() for package in packages)
    return f"""# What the harness costs beside the model

`python -m benchmarks.harness_overhead`: {large.requests:,} chats of {tokens:,.0f} tokens on average, answers of 100
tokens from a local server of no latency, {large.in_flight} in flight, {os.cpu_count()} cores, Python
{platform.python_version()}, {versions}. Medians of {repeats} repetitions
in which all sides take turns; what a request costs is the difference to a run of {small.requests} requests.

{table}

`bench run` augments, renders, asks for log-probabilities (which the vote needs, and which make an answer 15 times as
long; the other harnesses do not ask for them), decodes, inverts, stores durably and scores; the difference between it
and the second bare loop is all of that. As token ids, up to 16 of the {SAMPLES} prompts of a test output share a
request.
"""


def main() -> None:
    """Measure what is not known yet, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few requests, once; the page is printed, not written")
    parser.add_argument("--requests", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--in-flight", type=int, default=256)
    parser.add_argument("--work", type=Path, default=Path("runs/harness-overhead"))
    parser.add_argument("--peers", type=Path, help="where the peers' environments are (made in --work otherwise)")
    options = parser.parse_args()
    work = options.work / "quick" if options.quick else options.work
    repeats = 1 if options.quick else options.repeats
    sizes = (32, 320) if options.quick else (64, options.requests)
    small, large = (Case((work / "cases").resolve(), size, options.in_flight) for size in sizes)
    small.prepare()
    tokens = large.prepare()
    peers = (options.peers or options.work / "peers").resolve()
    store = Store(work)
    for side in SIDES:  # once for nothing, so that environments are there and modules compiled
        if not any(key[0] == side for key in store.known):
            measure(side, small, peers, work.resolve() / "out")
    for repeat in range(repeats):
        for turn in range(len(SIDES)):
            side = SIDES[(turn + repeat) % len(SIDES)]
            for case in (small, large):
                if (side, case.requests, repeat) not in store.known:
                    figures = measure(side, case, peers, work.resolve() / "out")
                    print(side, case.requests, json.dumps(figures), file=sys.stderr, flush=True)
                    store.add(side, case.requests, repeat, figures)
    text = page(store, small, large, repeats, tokens)
    if options.quick:
        print(text)
    else:
        PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

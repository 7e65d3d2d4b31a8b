"""The cost of error bars: the harness's intervals against one plain scipy call a cell.

A full table has 5 adapters × 4 metrics × 8 curve points = 160 cells, each an interval over 400 tasks with
9,999 resamples. Both sides run on the same values in the same run, each in a fresh process so that the peak
memory is its own, and every interval must be equal to the last bit. Goals: 30 times faster by the clock, in under
600 MB. Writes benchmarks/interval_speed.md, and ends with status 1 where a goal is missed.

    python -m benchmarks.interval_speed [--repeats 3] [--quick]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.intervals import intervals

TIMES, MEGABYTES = 30, 600
"""The goals: times faster than scipy at least, and peak memory below."""
PAGE = Path(__file__).with_suffix(".md")
ADAPTERS, POINTS, TASKS, DENOMINATOR = 5, 8, 400, 12 * 32

Floats = NDArray[np.float64]


def cells() -> Floats:
    """160 rows of 400 task values in 384ths: accuracy, pass, vote_1 and vote_2 rising along a curve."""
    rng = np.random.default_rng(7)
    chance = np.where(rng.random((ADAPTERS, 1, 1, TASKS)) < 0.525, 0, rng.beta(0.3, 0.8, (ADAPTERS, 1, 1, TASKS)))
    strength = np.array([0.6, 1.0, 0.8, 0.9])[None, :, None, None]
    growth = np.linspace(1.0, 3.0, POINTS)[None, None, :, None]
    whole: Floats = rng.binomial(DENOMINATOR, np.clip(chance * strength * growth, 0, 1)).reshape(-1, TASKS) * 1.0
    return whole


def by_harness(whole: Floats, resamples: int) -> list[tuple[float, float]]:
    """All rows through the shared count-matrix product."""
    found = intervals(whole / DENOMINATOR, DENOMINATOR, resamples=resamples)
    return [(i.low, i.high) for i in found]


def by_scipy(whole: Floats, resamples: int) -> list[tuple[float, float]]:
    """One call of scipy.stats.bootstrap a row, as it is usually written."""
    from scipy.stats import bootstrap

    ends = []
    for row in whole:
        rng = np.random.default_rng(0)
        found = bootstrap((row,), np.mean, n_resamples=resamples, method="BCa", rng=rng).confidence_interval
        ends.append((float(found.low) / DENOMINATOR, float(found.high) / DENOMINATOR))
    return ends


def measure(side: str, resamples: int) -> dict[str, float | str]:
    """Wall and processor seconds, peak memory (MB; ``own`` is what the work added) and a digest of all the ends."""
    import scipy.stats  # noqa: F401  (its import is no part of either side)

    whole = cells()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, cpu = time.perf_counter(), time.process_time()
    ends = (by_harness if side == "harness" else by_scipy)(whole, resamples)
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    digest = hashlib.sha256(np.array(ends).tobytes()).hexdigest()
    return {"wall": wall, "cpu": cpu, "total": peak / 1024, "own": (peak - before) / 1024, "digest": digest}


def in_fresh_process(side: str, resamples: int) -> dict[str, float | str]:
    """``measure`` in a new interpreter."""
    command = [sys.executable, str(Path(__file__).resolve()), "--side", side, "--resamples", str(resamples)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    result: dict[str, float | str] = json.loads(answer)
    return result


def missed(times: float, megabytes: float, equal: bool) -> list[str]:
    """The goals that these figures miss, in words."""
    found = [] if equal else ["the intervals differ from scipy's"]
    if times < TIMES:
        found.append(f"{times:.0f} times faster, where {TIMES} are wanted")
    if megabytes >= MEGABYTES:
        found.append(f"{megabytes:.0f} MB at the peak, where less than {MEGABYTES} is wanted")
    return found


def write_page(runs: list[tuple[str, dict[str, float | str]]], options: argparse.Namespace) -> tuple[str, list[str]]:
    """The page as Markdown, and the goals missed."""
    lines = [
        f"{len(cells())} cells, {TASKS} tasks, {options.resamples} resamples, median of {options.repeats} runs.\n",
        "| side | seconds | processor seconds | peak memory (MB) | of it for the work (MB) |",
        "| --- | --- | --- | --- | --- |",
    ]
    medians = {}
    for side in _SIDES:
        own = [result for name, result in runs if name == side]
        keys = ("wall", "cpu", "total", "own")
        wall, cpu, total, work = (statistics.median(float(r[key]) for r in own) for key in keys)
        medians[side] = wall, cpu, total
        lines.append(f"| {_SIDES[side]} | {wall:.2f} | {cpu:.2f} | {total:.0f} | {work:.0f} |")
    equal = len({result["digest"] for _, result in runs}) == 1
    by_wall, by_cpu, _ = (slow / fast for slow, fast in zip(medians["scipy"], medians["harness"], strict=True))
    verdict = "equal to the last bit" if equal else "DIFFER"
    lines.append(f"\nTime ratio {by_wall:.0f} by the clock, {by_cpu:.0f} in processor time; intervals {verdict}.")
    lines.append(f"Goals: {TIMES} times faster by the clock, under {MEGABYTES} MB.")
    head = "# The cost of error bars\n\nWritten by `python -m benchmarks.interval_speed`.\n\n"
    return head + "\n".join(lines) + "\n", missed(by_wall, medians["harness"][2], equal)


def main() -> int:
    """Measure both sides in turn and write the page; 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--resamples", type=int, default=9_999)
    parser.add_argument("--quick", action="store_true", help="print and write no page")
    parser.add_argument("--side", choices=("harness", "scipy"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(measure(options.side, options.resamples)))
        return 0
    # The two sides take turns, so that a busy machine slows both.
    runs = [(side, in_fresh_process(side, options.resamples)) for _ in range(options.repeats) for side in _SIDES]
    page, goals = write_page(runs, options)
    print(page, end="")
    if not options.quick:
        PAGE.write_text(page, encoding="utf-8")
    for goal in goals:
        print(f"missed: {goal}", file=sys.stderr)
    return 1 if goals else 0


_SIDES = {"harness": "harness.intervals", "scipy": "scipy.stats.bootstrap, one call a cell"}


if __name__ == "__main__":
    sys.exit(main())

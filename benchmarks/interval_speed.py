"""The cost of error bars: the harness's intervals against one scipy call per cell.

A full table has 5 adapters × 4 metrics × 8 curve points = 160 cells, each an interval over 400 tasks with
9,999 resamples. Both sides compute the same values in turns, each in a new process for its own peak memory, and every
interval must be bit-equal. Goals: 30 times faster, in under 600 MB. Writes benchmarks/interval_speed.md. The exit
status is 1 if a goal is missed.

    python -m benchmarks.interval_speed [--quick]
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Sequence
from functools import partial
from statistics import median

import numpy as np
from numpy.typing import NDArray

from benchmarks.common.entry import finish, open_store, parser, plain_page, repetitions
from benchmarks.common.findings import Finding, Growth
from benchmarks.common.processes import measure_process, module_command
from benchmarks.common.store import Store
from harness.stats.intervals import intervals

TIMES, MEGABYTES = 30, 600
"""The goals: times faster than scipy at least, and peak memory below."""
ADAPTERS, POINTS, TASKS, DENOMINATOR, RESAMPLES = 5, 8, 400, 12 * 32, 9_999
SIDES = ("harness", "scipy")
SIZES = (100, 400, 1600)
"""Tasks."""

Floats = NDArray[np.float64]


def cells(tasks: int) -> Floats:
    """Return 160 rows of task values in multiples of 1/384: accuracy, pass, vote_1 and vote_2 rising along a curve."""
    rng = np.random.default_rng(7)
    chance = np.where(rng.random((ADAPTERS, 1, 1, tasks)) < 0.525, 0, rng.beta(0.3, 0.8, (ADAPTERS, 1, 1, tasks)))
    strength = np.array([0.6, 1.0, 0.8, 0.9])[None, :, None, None]
    growth = np.linspace(1.0, 3.0, POINTS)[None, None, :, None]
    whole: Floats = rng.binomial(DENOMINATOR, np.clip(chance * strength * growth, 0, 1)).reshape(-1, tasks) * 1.0
    return whole


def by_harness(whole: Floats) -> list[tuple[float, float]]:
    """Compute all rows by the shared count-matrix product."""
    result = intervals(whole / DENOMINATOR, DENOMINATOR, resamples=RESAMPLES)
    return [(i.low, i.high) for i in result]


def by_scipy(whole: Floats) -> list[tuple[float, float]]:
    """Compute each row by one call of scipy.stats.bootstrap."""
    from scipy.stats import bootstrap

    ends = []
    for row in whole:
        rng = np.random.default_rng(0)
        result = bootstrap((row,), np.mean, n_resamples=RESAMPLES, method="BCa", rng=rng).confidence_interval
        ends.append((float(result.low) / DENOMINATOR, float(result.high) / DENOMINATOR))
    return ends


def one_side(side: str, tasks: int) -> dict[str, float | str]:
    """Return wall-clock and processor seconds, and a digest of all ends."""
    import scipy.stats  # noqa: F401  (its import is no part of either side)

    whole = cells(tasks)
    start, cpu = time.perf_counter(), time.process_time()
    ends = (by_harness if side == "harness" else by_scipy)(whole)
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    return {"seconds": wall, "cpu_seconds": cpu, "digest": hashlib.sha256(np.array(ends).tobytes()).hexdigest()}


def missed(megabytes: float, equal: bool) -> list[str]:
    """Return the missed goals other than speed, in words."""
    result = [] if equal else ["the intervals differ from scipy's"]
    if megabytes >= MEGABYTES:
        result.append(f"{megabytes:.0f} MB at the peak, where less than {MEGABYTES} is wanted")
    return result


def measure_sides(store: Store, sizes: Sequence[int], repeats: int) -> None:
    """Run the missing measurements, the two sides in turns."""

    def measure(side: str, tasks: int) -> dict[str, float | str]:
        done = measure_process(module_command("benchmarks.interval_speed", "--side", side, str(tasks)))
        return {**done.last_line(), "memory": done.memory}

    for tasks in sizes:
        for repeat in range(repeats):
            for side in SIDES if repeat % 2 == 0 else SIDES[::-1]:
                store.get(f"{side} {tasks} {repeat}", partial(measure, side, tasks))


def main() -> int:
    """Run the missing measurements and write the page."""
    arguments = parser(__doc__, "interval_speed")
    arguments.add_argument("--side", nargs=2, metavar=("SIDE", "TASKS"), help="what is run for one measurement")
    options = arguments.parse_args()
    if options.side:
        print(json.dumps(one_side(options.side[0], int(options.side[1]))))
        return 0
    store, repeats = open_store(options), repetitions(options)
    sizes = SIZES[:2] if options.quick else SIZES
    measure_sides(store, sizes, repeats)

    def values(side: str, field: str, tasks: int = TASKS) -> tuple[float, ...]:
        return store.repeated(f"{side} {tasks}", field, repeats)

    digests = {tasks: {d for side in SIDES for d in values(side, "digest", tasks)} for tasks in sizes}
    equal = all(len(result) == 1 for result in digests.values())
    memory = median(values("harness", "memory")), median(values("scipy", "memory"))
    findings = [
        Finding(what, unit, values("harness", field), PEER, values("scipy", field), memory=memory, goal=goal)
        for what, unit, field, goal in (
            ("160 intervals", "s", "seconds", TIMES),
            ("160 intervals", "CPU s", "cpu_seconds", None),
        )
    ]
    growths = [
        Growth(name, "tasks", "CPU s", sizes, tuple(median(values(side, "cpu_seconds", n)) for n in sizes))
        for side, name in (("harness", "160 intervals"), ("scipy", f"the same by {PEER}"))
    ]
    verdict = "equal to the last bit" if equal else "DIFFERENT"
    text = f"""\
{len(cells(TASKS))} cells, {TASKS} tasks, {RESAMPLES} resamples; the intervals are {verdict}.
Goals: {TIMES} times faster by the clock, under {MEGABYTES} MB."""
    page = plain_page("The cost of error bars", text, findings, growths)
    return finish(options, page, findings, growths, missed(memory[0], equal), store.versions())


PEER = "one `scipy.stats.bootstrap` a cell"


if __name__ == "__main__":
    sys.exit(main())

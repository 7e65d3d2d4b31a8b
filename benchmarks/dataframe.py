"""Predictions as a data frame: ``load_run(...).predictions`` against pandas reading the same file through orjson.

    python -m benchmarks.dataframe [--quick]

Writes predictions of a simulated model for the 400 tasks of ARC-AGI-1's evaluation set. Measures, in new processes, in
turns and with start-up: the Python interface, which also checks every line, compares every grid with the test output
and identifies it; a plain script, ``DataFrame`` of the parsed lines without their grids; and a lean one, which
keeps only the columns that the interface has. Goals: at most twice the time and the memory of the plain script, and a
million predictions in under 600 MB. Writes benchmarks/dataframe.md. The exit status is 1 if a goal is missed.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.common.entry import finish, open_store, parser, plain_page, repetitions, work_folder
from benchmarks.common.findings import Finding, Growth
from benchmarks.common.processes import measure_process, module_command
from benchmarks.common.store import Store
from benchmarks.predictions.files import write_lines

SIDES = {"interface": "this project", "plain": "plain script", "lean": "lean script"}
FACTOR, MEGABYTES = 2.0, 600
"""The goals: at most so many times the plain script, and less memory than this for a million predictions."""


def measure_side(side: str, path: Path) -> dict[str, Any]:
    """Measure one side on a file, in a new process."""
    done = measure_process(module_command("benchmarks.predictions.frames", side, str(path)))
    return {**done.figures(), **done.last_line()}


def measure(store: Store, folder: Path, sizes: tuple[int, ...], repeats: int) -> None:
    """Measure all sides at every size, in turns."""
    path = folder / "predictions.jsonl"
    for size in sizes:
        if all(f"{side} {size} {repeat}" in store.known for side in SIDES for repeat in range(repeats)):
            continue
        write_lines(path, size)
        for repeat in range(repeats):
            for side in SIDES if repeat % 2 == 0 else reversed(SIDES):
                store.get(f"{side} {size} {repeat}", partial(measure_side, side, path))
        path.unlink()


def missed(total: int, seconds: float, memory: float, rows_agree: bool) -> list[str]:
    """Return the goals that are missed, in words.

    Args:
        seconds: processor seconds as a multiple of the plain script's.
        memory: peak memory in MB.
    """
    goals = [] if rows_agree else ["the sides give different rows"]
    if seconds > FACTOR:
        goals.append(f"{seconds:.2f} times the processor time of the plain script, where {FACTOR:g} is the most")
    if memory >= MEGABYTES * max(1.0, total / 1e6):
        goals.append(f"{memory:.0f} MB for {total:,} predictions, where {MEGABYTES} a million are wanted")
    return goals


def main() -> int:
    """Run the missing measurements and write the page; return 1 if a goal is missed."""
    arguments = parser(__doc__, "dataframe")
    arguments.add_argument("--predictions", type=int, help="of the largest file (default 1,000,000; quick: 20,000)")
    options = arguments.parse_args()
    total = options.predictions or (20_000 if options.quick else 1_000_000)
    sizes = (total // 4, total // 2, total)
    store, repeats = open_store(options), repetitions(options)
    measure(store, work_folder(options), sizes, repeats)

    def values(side: str, field: str, size: int = total) -> tuple[float, ...]:
        return store.repeated(f"{side} {size}", field, repeats)

    findings = [
        Finding(
            f"{total:,} predictions, {what}", unit, values("interface", field), SIDES[side], values(side, field),
            goal=1 / FACTOR if side == "plain" else None, why=_WHY,
        )
        for what, field, unit in (("time", "cpu", "CPU s"), ("memory", "memory", "MB"))
        for side in ("plain", "lean")
    ]  # fmt: skip
    growths = [
        Growth(f"{name}, {what}", "predictions", unit, sizes, tuple(median(values(side, field, n)) for n in sizes))
        for side, name in SIDES.items()
        for what, field, unit in (("time", "cpu", "CPU s"), ("memory", "memory", "MB"))
    ]
    agree = all(len({json.dumps(store.known[f"{side} {size} 0"]["check"]) for side in SIDES}) == 1 for size in sizes)
    text = f"""\
Predictions of a simulated model for the 400 tasks of ARC-AGI-1's evaluation set, a kilobyte a line, as a data frame,
in a fresh process, start-up included. *This project* is `load_run(FILE, DATASET).predictions`: every line is checked,
every grid is compared with the test output and identified. The *plain script* is `DataFrame` of the lines that orjson
parsed, without their grids; the *lean script* keeps only the columns that this project has. The rows
{"agree" if agree else "DIFFER"}.
Goals: at most {FACTOR:g} times the plain script, and a million predictions in under {MEGABYTES} MB."""
    page = plain_page("Predictions as a data frame", text, findings, growths)
    ratio = median(values("interface", "cpu")) / median(values("plain", "cpu"))
    goals = missed(total, ratio, median(values("interface", "memory")), agree)
    return finish(options, page, findings, growths, goals, store.versions())


_WHY = "Every line is checked, and every grid parsed, compared and identified, which the scripts leave out"


if __name__ == "__main__":
    sys.exit(main())

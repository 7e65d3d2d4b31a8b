"""Scoring saved predictions: the command ``bench score`` against a plain script that computes the same.

    python -m benchmarks.scoring [--quick]

Writes predictions of a simulated model for the 400 tasks of ARC-AGI-1's evaluation set, in our format and in arc24's
two. Measures, in new processes, in turns and with start-up: the command, and a straightforward script (``json`` per
line, a ``Counter`` of tuples per test output, numpy, one ``scipy.stats.bootstrap`` per metric). Both must give the same
metrics. Goals: a million predictions in under 60 s and 600 MB. Writes benchmarks/scoring.md. The exit status is 1 if a
goal is missed.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.common.entry import finish, open_store, parser, plain_page, repetitions, work_folder
from benchmarks.common.findings import Finding, Growth
from benchmarks.common.processes import measure_process, module_command
from benchmarks.common.store import Store
from benchmarks.predictions.files import SPEC, write_attempts, write_lines, write_task_results
from harness.results.table_format import markdown_table
from harness.voting.metrics import METRICS

SECONDS, MEGABYTES = 60, 600
"""The goals of the command for a million predictions: less than this by the clock and at the peak of memory."""
FORMS: dict[str, tuple[Callable[[Path, int], None], list[str]]] = {
    "lines, --rules all": (write_lines, ["--rules", "all"]),
    "arc24": (write_task_results, []),
    "attempts": (write_attempts, []),
}


def by_command(path: Path, *options: str) -> dict[str, Any]:
    """Measure the command on a file."""
    done = measure_process(
        module_command("harness.cli", "score", str(path), "--dataset", SPEC, "--json", "-", *options)
    )
    (model,) = json.loads(done.output)["models"].values()
    metrics = {name: metric["value"] for name, metric in model["metrics"].items()}
    return {**done.figures(), "metrics": metrics}


def by_script(path: Path) -> dict[str, Any]:
    """Measure the plain script on a file, in a separate process."""
    done = measure_process(module_command("benchmarks.predictions.plain", str(path)))
    return {**done.figures(), "metrics": done.last_line()}


def measure(store: Store, folder: Path, sizes: tuple[int, ...], repeats: int) -> None:
    """Measure both sides at every size, in turns, and the other formats once at the smallest."""
    path = folder / "predictions.jsonl"
    sides = {"command": by_command, "script": by_script}
    for size in sizes:
        if all(f"{side} {size} {repeat}" in store.known for side in sides for repeat in range(repeats)):
            continue
        write_lines(path, size)
        for repeat in range(repeats):
            for side in ("command", "script") if repeat % 2 == 0 else ("script", "command"):
                store.get(f"{side} {size} {repeat}", partial(sides[side], path))
        path.unlink()
    for form, (write, more) in FORMS.items():
        if f"{form} {sizes[0]}" not in store.known:
            path = folder / ("x.jsonl" if write is write_lines else "x.json")
            write(path, sizes[0])
            store.put(f"{form} {sizes[0]}", by_command(path, *more))
            path.unlink()


def missed(total: int, wall: float, megabytes: float, agree: bool) -> list[str]:
    """Return the goals that the command misses on ``total`` predictions, in words."""
    goals = [] if agree else ["the two sides give different metrics"]
    if wall >= SECONDS * max(1.0, total / 1e6):
        goals.append(f"{wall:.0f} s for {total:,} predictions, where {SECONDS} a million are wanted")
    if megabytes >= MEGABYTES * max(1.0, total / 1e6):
        goals.append(f"{megabytes:.0f} MB for {total:,} predictions, where {MEGABYTES} a million are wanted")
    return goals


def main() -> int:
    """Run the missing measurements and write the page; return 1 if a goal is missed."""
    arguments = parser(__doc__, "scoring")
    arguments.add_argument("--predictions", type=int, help="of the largest file (default 1,000,000; quick: 20,000)")
    options = arguments.parse_args()
    total = options.predictions or (20_000 if options.quick else 1_000_000)
    sizes = (total // 4, total // 2, total)
    store, repeats = open_store(options), repetitions(options)
    measure(store, work_folder(options), sizes, repeats)

    def values(side: str, field: str, size: int = total) -> tuple[float, ...]:
        return store.repeated(f"{side} {size}", field, repeats)

    both = [(store.known[f"command {size} 0"]["metrics"], store.known[f"script {size} 0"]["metrics"]) for size in sizes]
    agree = all(math.isclose(a[name], b[name], abs_tol=1e-9) for a, b in both for name in METRICS)
    memory = median(values("command", "memory")), median(values("script", "memory"))
    findings = [
        Finding(f"{total:,} predictions", unit, values("command", field), PEER, values("script", field), memory=memory)
        for unit, field in (("s", "wall"), ("CPU s", "cpu"))
    ]
    growths = [
        Growth(f"{name}, {what}", "predictions", unit, sizes, tuple(median(values(side, field, n)) for n in sizes))
        for side, name in (("command", "`bench score`"), ("script", PEER))
        for what, field, unit in (("time", "cpu", "CPU s"), ("memory", "memory", "MB"))
    ]
    rows = [
        [form, *(f"{store.known[f'{form} {sizes[0]}'][field]:.1f}" for field in ("wall", "cpu", "memory"))]
        for form in FORMS
    ]
    others = markdown_table(("form", "seconds", "CPU seconds", "peak memory (MB)"), rows)
    text = f"""\
Predictions of a simulated model for the 400 tasks of ARC-AGI-1's evaluation set, a kilobyte a line, scored by the whole
command in a fresh process, start-up included. The *plain script* is the usual one (`json` a line, a `Counter` of tuples
for each test output, numpy, one `scipy.stats.bootstrap` a metric). The metrics {"agree" if agree else "DIFFER"}.
Goals: a million predictions in under {SECONDS} s and {MEGABYTES} MB."""
    more = f"Other forms, {sizes[0]:,} predictions, once:\n\n{others}"
    page = plain_page("Scoring saved predictions", text, findings, growths, more)
    goals = missed(total, median(values("command", "wall")), memory[0], agree)
    return finish(options, page, findings, growths, goals, store.versions())


PEER = "plain script"


if __name__ == "__main__":
    sys.exit(main())

"""Scoring saved predictions: the whole command ``bench score`` against a plain script that computes the same.

    python -m benchmarks.scoring [--predictions 1000000] [--repeats 3]

Writes predictions of a simulated model for the 400 tasks of ARC-AGI-1's evaluation set, in our form and in arc24's
two, and times in fresh processes, start-up included: the command, and a script as it is usually written (``json`` a
line, a ``Counter`` of tuples for each test output, numpy, one ``scipy.stats.bootstrap`` a metric). Both must give
the same metrics. Growth is fitted over three sizes. Goals: a million predictions in under 60 s and 600 MB. Prints
Markdown, of which ``benchmarks/scoring.md`` keeps one run, and ends with status 1 where a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.predictions.files import SPEC, write_attempts, write_lines, write_task_results
from harness.metrics import METRICS

SECONDS, MEGABYTES = 60, 600
"""The goals of the command for a million predictions: less than this by the clock and at the peak of memory."""
COMMAND = [sys.executable, "-m", "harness.cli", "score"]


@dataclass(frozen=True)
class Figures:
    """What one process took."""

    wall: float
    cpu: float
    megabytes: float
    values: dict[str, float]


def measure(command: list[str]) -> Figures:
    """Run a command that prints JSON, and what its process took."""
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+b") as out:
        process = subprocess.Popen(command, stdout=out)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.perf_counter() - start
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} failed with status {process.returncode}")
        out.seek(0)
        found = json.load(out)
    if "models" in found:
        (model,) = found["models"].values()
        found = {name: metric["value"] for name, metric in model["metrics"].items()}
    return Figures(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, found)


def by_command(path: Path, *options: str) -> Figures:
    """The whole command on a file."""
    return measure([*COMMAND, str(path), "--dataset", SPEC, "--json", "-", *options])


def by_script(path: Path) -> Figures:
    """The plain script on a file, in a process of its own."""
    return measure([sys.executable, "-m", "benchmarks.predictions.plain", str(path)])


def median(runs: list[Figures]) -> Figures:
    """Medians of times and memory."""
    wall, cpu, megabytes = (
        statistics.median(getattr(run, name) for run in runs) for name in ("wall", "cpu", "megabytes")
    )
    return Figures(wall, cpu, megabytes, runs[0].values)


def told(figures: Figures) -> str:
    """Three cells of a table."""
    return f"{figures.wall:.1f} | {figures.cpu:.1f} | {figures.megabytes:.0f}"


def missed(total: int, figures: Figures, agree: bool) -> list[str]:
    """The goals that these figures of the command miss on ``total`` predictions, in words."""
    found = [] if agree else ["the two sides give different metrics"]
    if figures.wall >= SECONDS * max(1.0, total / 1e6):
        found.append(f"{figures.wall:.0f} s for {total:,} predictions, where {SECONDS} a million are wanted")
    if figures.megabytes >= MEGABYTES * max(1.0, total / 1e6):
        found.append(f"{figures.megabytes:.0f} MB for {total:,} predictions, where {MEGABYTES} a million are wanted")
    return found


def compare_sides(folder: Path, total: int, repeats: int) -> list[str]:
    """Print the table of both sides at three sizes; the goals missed at the largest."""
    print("| predictions | file (MB) | side | seconds | processor seconds | peak memory (MB) |")
    print("| --- | --- | --- | --- | --- | --- |")
    grown: list[tuple[int, Figures]] = []
    agree = True
    for size in (total // 4, total // 2, total):
        path = folder / "predictions.jsonl"
        write_lines(path, size)
        # The two sides take turns, so that a busy machine slows both.
        pairs = [(by_command(path), by_script(path)) for _ in range(repeats)]
        ours, plain = median([pair[0] for pair in pairs]), median([pair[1] for pair in pairs])
        megabytes = path.stat().st_size / 1e6
        print(f"| {size:,} | {megabytes:,.0f} | bench score | {told(ours)} |")
        print(f"| | | plain script | {told(plain)} |", flush=True)
        grown.append((size, ours))
        agree &= all(math.isclose(ours.values[name], plain.values[name], abs_tol=1e-9) for name in METRICS)
    print(f"\nMetrics {'agree to 1e-9' if agree else 'DIFFER'}. {fit(grown)}\n")
    return missed(total, grown[-1][1], agree)


def fit(grown: list[tuple[int, Figures]]) -> str:
    """How cost grows: a straight line through the smallest and the largest size, and how far the middle is off it."""
    (small, first), (middle, between), (large, last) = grown
    each = (last.cpu - first.cpu) / (large - small)
    start = first.cpu - each * small
    off = between.cpu / (start + each * middle) - 1
    memory = (last.megabytes - first.megabytes) * (1 << 20) / (large - small)
    line = f"{start:.1f} s and {1e6 * each:.0f} µs a prediction (the middle size is {100 * off:+.0f} % off that line)"
    return f"Processor time of bench score: {line}; {memory:.0f} bytes of memory a prediction."


def other_forms(folder: Path, total: int) -> None:
    """Print the table of the command on other forms, and with all rules."""
    print("| predictions | form | file (MB) | seconds | processor seconds | peak memory (MB) |")
    print("| --- | --- | --- | --- | --- | --- |")
    for form, write in (
        ("lines, --rules all", write_lines),
        ("arc24", write_task_results),
        ("attempts", write_attempts),
    ):
        path = folder / ("x.jsonl" if write is write_lines else "x.json")
        write(path, total)
        figures = by_command(path, *(["--rules", "all"] if write is write_lines else []))
        print(f"| {total:,} | {form} | {path.stat().st_size / 1e6:,.0f} | {told(figures)} |", flush=True)
        path.unlink()


def main() -> int:
    """Measure and print; 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--predictions", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        goals = compare_sides(Path(name), options.predictions, options.repeats)
        other_forms(Path(name), options.predictions // 4)
    for goal in goals:
        print(f"missed: {goal}", file=sys.stderr)
    return 1 if goals else 0


if __name__ == "__main__":
    sys.exit(main())

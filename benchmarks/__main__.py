"""Run all benchmarks, each against its peer or limit in the same session.

    python -m benchmarks [--quick] [--minutes M] [ENTRY ...]

Measurements are stored in runs/benchmarks, so that the same command resumes where it stopped; --fresh starts over.
Each entry writes benchmarks/ENTRY.md and can be run alone (``python -m benchmarks.ENTRY --help``). At the end
benchmarks/RESULTS.md is written; what it says of entries that were not measured here is kept. The pages that quote the
results are written with it: the comparisons of README.md and docs/speed.md, and docs/scaling.md. The exit status is 1
if a goal is missed or an entry fails.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.common.entry import FOLDER, SUMMARY, WORK
from benchmarks.common.results_page import results_page
from benchmarks.comparison.__main__ import write_tables
from benchmarks.scaling.__main__ import write_block

ENTRIES = {
    "startup": "Start-up",
    "data": "Reading BARC at size",
    "prompts": "Building prompts",
    "interval_speed": "Intervals",
    "scoring": "Scoring saved predictions",
    "dataframe": "Predictions as a data frame",
    "stopping": "Stopping early",
    "coverage": "Coverage of the intervals",
    "sequential": "Deciding with fewer draws",
    "harness_overhead": "The harness beside the model",
    "throughput": "Share of a real vLLM's throughput",
    "candidates": "Candidates",
    "api_process": "One API process",
    "hot_swap": "Swapping adapters",
    "trainer": "Training",
    "ttt": "Test-time training",
}
"""In the order in which they are run: the quick ones first."""
RESULTS = FOLDER / "RESULTS.md"


def run_entry(entry: str, folder: Path, options: argparse.Namespace, minutes: float) -> bool:
    """Run one benchmark if it is not finished yet, and return whether it failed."""
    if (folder / SUMMARY).exists():
        print(f"{entry}: finished before", file=sys.stderr)
        return False
    start = time.monotonic()
    command = [sys.executable, "-m", f"benchmarks.{entry}", "--work", str(options.work)]
    command += ["--quick"] if options.quick else []
    command += ["--minutes", f"{minutes:.2f}"] if minutes < 1e8 else []
    with (folder.parent / f"{entry}.log").open("ab") as log:
        status = subprocess.run(command, stdout=log, stderr=log, check=False).returncode
    state = "finished" if (folder / SUMMARY).exists() else "not finished" if status == 0 else f"failed ({status})"
    print(f"{entry}: {state} in {time.monotonic() - start:.0f} s; {folder.parent / entry}.log", file=sys.stderr)
    return not (folder / SUMMARY).exists() and status != 0


def _write_quoting_pages() -> None:
    """Write the pages that quote the results, if these have all that they quote."""
    try:
        write_tables()
        write_block()
    except (KeyError, ValueError) as error:
        print(f"README.md, docs/speed.md and docs/scaling.md are not all written: {error}", file=sys.stderr)


def main() -> int:
    """Run the benchmarks that are not finished, and write RESULTS.md."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("entries", nargs="*", metavar="ENTRY", help=f"of {', '.join(ENTRIES)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="small, once, in five minutes; no page, no new peers")
    parser.add_argument("--fresh", action="store_true", help="forget what was measured before")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no measurement after this time")
    parser.add_argument("--work", type=Path, default=WORK, help=f"folder of the measurements (default {WORK})")
    options = parser.parse_args()
    if unknown := [entry for entry in options.entries if entry not in ENTRIES]:
        parser.error(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(ENTRIES)}")
    work = options.work / ("quick" if options.quick else "")
    start, failed, summaries = time.monotonic(), [], {}
    for entry in ENTRIES:
        folder = work / entry
        if not options.entries or entry in options.entries:
            if options.fresh or options.quick:
                shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True, exist_ok=True)
            if run_entry(entry, folder, options, options.minutes - (time.monotonic() - start) / 60):
                failed.append(entry)
        if (folder / SUMMARY).exists():
            summaries[entry] = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
    if options.quick:
        print(results_page(ENTRIES, summaries))
    else:
        before = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else ""
        RESULTS.write_text(results_page(ENTRIES, summaries, before), encoding="utf-8")
        _write_quoting_pages()
    waiting = [entry for entry in ENTRIES if entry not in summaries]
    if waiting:
        print(f"not finished: {', '.join(waiting)}; the same command resumes", file=sys.stderr)
    missed = not options.quick and any(summary["missed"] for summary in summaries.values())
    return 1 if failed or missed else 0


if __name__ == "__main__":
    sys.exit(main())

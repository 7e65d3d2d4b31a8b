"""Reading BARC at full size: the line index against a list of all rows and Hugging Face datasets.

    python -m benchmarks.data [--quick]

Files of three sizes with BARC's fields and published row size (28 KB). Every side runs in separate processes, in turns:
opening the file for the first time, opening it again, reading random tasks, and the leak audit. Writes
benchmarks/data.md.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.bulk.rows import ROW_BYTES, write_rows
from benchmarks.bulk.sides import DRAWS
from benchmarks.common.entry import finish, open_store, parser, plain_page, repetitions, work_folder
from benchmarks.common.findings import Finding, Growth
from benchmarks.common.processes import measure_process, module_command
from benchmarks.common.store import Store

BARC_ROWS = 400_000
WHY = (
    "each drawing parses the row (orjson, a third of the time, more than the difference); the list holds all rows "
    "parsed, at the memory shown"
)
"""By a profile; the rest is the making and checking of grids, which both sides do alike."""
SIDES = ("first", "again", "list", "arrow first", "arrow again", "audit")


def measure(store: Store, folder: Path, megabytes: int, repeats: int) -> None:
    """Measure all sides on a file of one size, which is written for it and removed."""
    keys = [f"{side} {megabytes} {repeat}" for repeat in range(repeats) for side in SIDES]
    if all(key in store.known for key in keys):
        return
    path, caches = folder / "rows.jsonl", folder / "caches"
    write_rows(path, megabytes)
    for repeat in range(repeats):
        for turn in range(3):
            kind = ("indexed", "list", "arrow")[(turn + repeat) % 3]
            _measure_kind(store, kind, path, caches / kind, f"{megabytes} {repeat}")
    path.unlink()
    shutil.rmtree(caches)


def _measure_kind(store: Store, kind: str, path: Path, cache: Path, case: str) -> None:
    def side(name: str) -> dict[str, Any]:
        done = measure_process(
            module_command("benchmarks.bulk.sides", name, str(path), str(cache)), {"HF_HUB_OFFLINE": "1"}
        )
        figures: dict[str, Any] = done.last_line()
        return figures

    if kind == "list":
        store.get(f"list {case}", lambda: side("list"))
        return
    shutil.rmtree(cache, ignore_errors=True)
    prefix = "" if kind == "indexed" else "arrow "
    first = store.known.get(f"{prefix}first {case}")
    if first is None:
        store.get(f"{prefix}first {case}", lambda: side(kind))
    else:
        side(kind)  # what follows needs the cache
    store.get(f"{prefix}again {case}", lambda: side(kind))
    if kind == "indexed":
        store.get(f"audit {case}", lambda: side("audit"))


def main() -> int:
    """Run the missing measurements and write the page."""
    options = parser(__doc__, "data").parse_args()
    sizes = (5, 20) if options.quick else (80, 160, 320)
    store, repeats = open_store(options), repetitions(options)
    for size in sizes:
        measure(store, work_folder(options), size, repeats)

    def values(side: str, field: str, size: int = sizes[-1]) -> tuple[float, ...]:
        return tuple(store.known[f"{side} {size} {repeat}"][field] for repeat in range(repeats))

    def finding(what: str, field: str, side: str, name: str, peer: str, **more: Any) -> Finding:
        memory = median(values(side, "memory")), median(values(peer, "memory"))
        return Finding(
            what, more.pop("unit", "s"), values(side, field), name, values(peer, field), memory=memory, **more
        )

    arrow, plain = "Hugging Face datasets", "`json.loads` into a list"
    findings = [
        finding("opened the first time", "open", "first", plain, "list"),
        finding("opened the first time", "open", "first", arrow, "arrow first"),
        finding("opened again", "open", "again", plain, "list"),
        finding("opened again", "open", "again", arrow, "arrow again"),
        finding("random tasks", "draws_per_cpu_s", "again", arrow, "arrow again", unit="/CPU s", more_is_better=True),
        finding("random tasks", "draws_per_cpu_s", "again", plain, "list", unit="/CPU s", more_is_better=True, why=WHY),
    ]
    rows = store.known[f"list {sizes[-1]} 0"]["rows"]
    rates = values("audit", "rows_per_cpu_s")
    parsed = tuple(rows / cpu for cpu in values("list", "open_cpu"))
    findings.append(Finding("audit", "rows/CPU s", rates, "`json.loads` alone", parsed, more_is_better=True))
    kinds = (("opened the first time", "first", "open", "s"), ("opened again", "again", "open", "s"))
    kinds += (("memory after random tasks", "again", "memory", "MB"), ("memory with the list", "list", "memory", "MB"))
    growths = [
        Growth(what, "MB of the file", unit, sizes, tuple(median(values(side, field, size)) for size in sizes))
        for what, side, field, unit in kinds
    ]
    costs = tuple(rows * size / sizes[-1] / median(values("audit", "rows_per_cpu_s", size)) for size in sizes)
    growths.append(Growth("audit against 400 tasks", "MB of the file", "CPU s", sizes, costs))
    text = f"""\
A file of {rows:,} generated rows of {ROW_BYTES / 1000:.0f} KB with 10 pairs each, {sizes[-1]} MB. Seconds by the clock.
After opening, {DRAWS:,} random tasks are drawn; all sides check the grids and draw the pairs alike. Memory is what the
process then has without file pages."""
    gigabytes = BARC_ROWS / rows * median(values("list", "memory")) / 1000
    more = f"""\
At BARC's size ({BARC_ROWS:,} rows) the list would take {gigabytes:.0f} GB, and the audit takes
{BARC_ROWS / median(rates) / 60:.1f} minutes of one core."""
    page = plain_page("Reading BARC at size", text, findings, growths, more)
    return finish(options, page, findings, growths, versions=store.versions())


if __name__ == "__main__":
    sys.exit(main())

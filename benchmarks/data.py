"""Reading BARC at full size: the line index against a list of all rows and Hugging Face datasets.

    python -m benchmarks.data [--quick]

Files of three sizes with BARC's fields and published row size (28 KB). Every side runs in separate processes, in turns:
opening the file for the first time, opening it again, reading random tasks, and the leak audit. Writes
benchmarks/data.md.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Figures:
    """The measurements of all sides, by the size of the file in megabytes."""

    store: Store
    sizes: tuple[int, ...]
    repeats: int

    @property
    def rows(self) -> int:
        """Number of rows of the largest file."""
        return int(self.store.known[f"list {self.sizes[-1]} 0"]["rows"])

    def values(self, side: str, field: str, size: int | None = None) -> tuple[float, ...]:
        """Return a field of a side's repetitions, by default on the largest file."""
        return self.store.repeated(f"{side} {self.sizes[-1] if size is None else size}", field, self.repeats)

    def medians(self, side: str, field: str) -> tuple[float, ...]:
        """Return the median of a field for each size."""
        return tuple(median(self.values(side, field, size)) for size in self.sizes)

    def finding(self, what: str, field: str, side: str, name: str, peer: str, **more: Any) -> Finding:
        """Return the comparison of two sides on the largest file."""
        memory = median(self.values(side, "memory")), median(self.values(peer, "memory"))
        values, peers = self.values(side, field), self.values(peer, field)
        return Finding(what, more.pop("unit", "s"), values, name, peers, memory=memory, **more)


def compared_sides(figures: Figures) -> list[Finding]:
    """Return the comparisons with a list of all rows and with Hugging Face datasets."""
    finding, arrow, plain = figures.finding, "Hugging Face datasets", "`json.loads` into a list"
    rates = figures.values("audit", "rows_per_cpu_s")
    parsed = tuple(figures.rows / cpu for cpu in figures.values("list", "open_cpu"))
    return [
        finding("opened the first time", "open", "first", plain, "list"),
        finding("opened the first time", "open", "first", arrow, "arrow first"),
        finding("opened again", "open", "again", plain, "list"),
        finding("opened again", "open", "again", arrow, "arrow again"),
        finding("random tasks", "draws_per_cpu_s", "again", arrow, "arrow again", unit="/CPU s", more_is_better=True),
        finding("random tasks", "draws_per_cpu_s", "again", plain, "list", unit="/CPU s", more_is_better=True, why=WHY),
        Finding("audit", "rows/CPU s", rates, "`json.loads` alone", parsed, more_is_better=True),
    ]


def growth_by_size(figures: Figures) -> list[Growth]:
    """Return how times and memory grow with the file."""
    sizes = figures.sizes
    kinds = (("opened the first time", "first", "open", "s"), ("opened again", "again", "open", "s"))
    kinds += (("memory after random tasks", "again", "memory", "MB"), ("memory with the list", "list", "memory", "MB"))
    growths = [
        Growth(what, "MB of the file", unit, sizes, figures.medians(side, field)) for what, side, field, unit in kinds
    ]
    rates = zip(sizes, figures.medians("audit", "rows_per_cpu_s"), strict=True)
    costs = tuple(figures.rows * size / sizes[-1] / rate for size, rate in rates)
    return [*growths, Growth("audit against 400 tasks", "MB of the file", "CPU s", sizes, costs)]


def main() -> int:
    """Run the missing measurements and write the page."""
    options = parser(__doc__, "data").parse_args()
    sizes = (5, 20) if options.quick else (80, 160, 320)
    store, repeats = open_store(options), repetitions(options)
    for size in sizes:
        measure(store, work_folder(options), size, repeats)
    figures = Figures(store, sizes, repeats)
    findings, growths, rows = compared_sides(figures), growth_by_size(figures), figures.rows
    text = f"""\
A file of {rows:,} generated rows of {ROW_BYTES / 1000:.0f} KB with 10 pairs each, {sizes[-1]} MB. Seconds by the clock.
After opening, {DRAWS:,} random tasks are drawn; all sides check the grids and draw the pairs alike. Memory is what the
process then has without file pages."""
    gigabytes = BARC_ROWS / rows * median(figures.values("list", "memory")) / 1000
    more = f"""\
At BARC's size ({BARC_ROWS:,} rows) the list would take {gigabytes:.0f} GB, and the audit takes
{BARC_ROWS / median(figures.values("audit", "rows_per_cpu_s")) / 60:.1f} minutes of one core."""
    page = plain_page("Reading BARC at size", text, findings, growths, more)
    return finish(options, page, findings, growths, versions=store.versions())


if __name__ == "__main__":
    sys.exit(main())

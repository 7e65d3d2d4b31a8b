"""Ways to open a file of rows and to read random ones, each run in a separate process.

python -m benchmarks.bulk.sides SIDE FILE CACHE
"""

from __future__ import annotations

import json
import os
import random
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

Figures = dict[str, float]
DRAWS = 2_000


def indexed(path: str, cache: str) -> Figures:
    """Open the file with this project's line index, which is built if the cache has none, and read random tasks."""
    from harness.core.random_stream import Stream
    from harness.data.spec import open_dataset

    os.environ["ARC_BENCH_CACHE"] = cache
    start, cpu = perf_counter(), process_time()
    dataset = open_dataset(path)
    opened = {"open": perf_counter() - start, "open_cpu": process_time() - cpu}
    places = _places(len(dataset.ids))
    cpu = process_time()
    for i, place in enumerate(places):
        dataset.task(place, Stream("draw", i))
    return {**opened, "draws_per_cpu_s": DRAWS / (process_time() - cpu), "rows": len(dataset.ids), **memory()}


def as_list(path: str, cache: str) -> Figures:
    """Parse every line with json.loads into a list."""
    start, cpu = perf_counter(), process_time()
    with open(path, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    opened = {"open": perf_counter() - start, "open_cpu": process_time() - cpu}
    return {**opened, "draws_per_cpu_s": _draws(rows), "rows": len(rows), **memory()}


def as_arrow(path: str, cache: str) -> Figures:
    """Open the file with Hugging Face datasets, which converts it to Arrow or finds it in its cache."""
    import datasets

    datasets.disable_progress_bars()
    start, cpu = perf_counter(), process_time()
    rows = datasets.load_dataset("json", data_files=path, split="train", cache_dir=cache)
    opened = {"open": perf_counter() - start, "open_cpu": process_time() - cpu}
    return {**opened, "draws_per_cpu_s": _draws(rows), "rows": len(rows), **memory()}


def audit(path: str, cache: str) -> Figures:
    """Run the leak audit of 400 evaluation tasks against every row."""
    from harness.data.spec import open_dataset
    from harness.inspection.leak_audit import audit_datasets

    os.environ["ARC_BENCH_CACHE"] = cache
    evals, dataset = open_dataset("arc1/evaluation"), open_dataset(path)
    cpu = process_time()
    audits = audit_datasets([dataset], [evals])
    return {"rows_per_cpu_s": audits["free"].n_train / (process_time() - cpu)}


def _draws(rows: Any) -> float:
    """Return random tasks read per second, built as this project builds them."""
    from harness.core.grid import Grid, Pair
    from harness.core.random_stream import Stream
    from harness.data.task_sources import PairList

    places = _places(len(rows))
    cpu = process_time()
    for i, place in enumerate(places):
        pairs = tuple(Pair(*map(Grid.from_rows, pair)) for pair in rows[place]["examples"])
        PairList(str(place), pairs).draw_task(Stream("draw", i))
    return DRAWS / (process_time() - cpu)


def _places(n: int) -> list[int]:
    rng = random.Random(0)
    return [rng.randrange(n) for _ in range(DRAWS)]


def memory() -> Figures:
    """Return the current memory of this process in MB without file pages, or its peak if there is no /proc."""
    path = Path("/proc/self/status")
    if path.exists():
        line = next(line for line in path.read_text().splitlines() if line.startswith("RssAnon"))
        return {"memory": int(line.split()[1]) / 1000}
    return {"memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000}


SIDES: dict[str, Callable[[str, str], Figures]] = {
    "indexed": indexed,
    "list": as_list,
    "arrow": as_arrow,
    "audit": audit,
}

if __name__ == "__main__":
    print(json.dumps(SIDES[sys.argv[1]](sys.argv[2], sys.argv[3])))

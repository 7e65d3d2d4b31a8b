"""Reading BARC at size, and building prompts: this project's way against the plain one.

    python -m benchmarks.data [--megabytes 320] [--rows 400] [--json FILE]

Writes a file of BARC's row form and published row size (about 28 KB), and times, each in a process of its own:
building the index, opening it again, drawing random tasks; against ``json.loads`` of every line into a list. Then
the leak audit against the file, and prompt tokens a second with and without the cached-segments lookup. Rates are
by processor time, so that they mean one core whatever else the machine does.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time

from harness.grid import COLOURS, Grid
from harness.rng import Stream

Figures = dict[str, float]
ROW_BYTES = 28_000
DRAWS = 4_000


def write_rows(path: Path, megabytes: int) -> int:
    """Rows of 10 pairs whose text is 28 KB; returns how many. The cells are cut from random bytes, for speed."""
    rng = Stream("benchmark")
    noise = bytes(rng.below(COLOURS) for _ in range(60_000))
    n = 0
    with path.open("wb") as file:
        while file.tell() < megabytes * 1_000_000:
            examples = []
            for _ in range(10):
                height, width = rng.between(8, 22), rng.between(8, 22)
                pair = []
                for _ in range(2):
                    start = rng.below(len(noise) - height * width)
                    pair.append(Grid(height, width, noise[start : start + height * width]).to_rows())
                examples.append(pair)
            row = {"source": "", "examples": examples, "seeds": ["a.py", "b.py"]}
            row["source"] = "# " * max(0, (ROW_BYTES - len(json.dumps(row))) // 2)
            file.write(json.dumps(row).encode() + b"\n")
            n += 1
    return n


def memory() -> Figures:
    """Peak resident and present anonymous memory of this process, MB."""
    status = Path("/proc/self/status").read_text() if Path("/proc/self/status").exists() else ""
    anonymous = next((int(line.split()[1]) / 1000 for line in status.splitlines() if line.startswith("RssAnon")), 0.0)
    return {"peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000, "anonymous_mb": anonymous}


def open_rows(path: str) -> Figures:
    """Open through the index, building it where it is not there yet, and draw random tasks."""
    from harness.datasets import open_dataset

    start = perf_counter()
    dataset = open_dataset(path)
    opened = perf_counter() - start
    n = len(dataset.ids)
    places = [Stream("place", i).below(n) for i in range(DRAWS)]
    start, cpu = perf_counter(), process_time()
    for i, place in enumerate(places):
        dataset.task(place, Stream("draw", i))
    rates = {
        "tasks_per_second": DRAWS / (perf_counter() - start),
        "tasks_per_cpu_second": DRAWS / (process_time() - cpu),
    }
    return {"seconds_to_open": opened, **rates, **memory()}


def load_list(path: str) -> Figures:
    """The plain way: every line through json.loads into a list."""
    start, cpu = perf_counter(), process_time()
    with open(path, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    seconds = {"seconds_to_open": perf_counter() - start, "cpu_seconds_to_open": process_time() - cpu}
    return {**seconds, "rows": len(rows), **memory()}


def audit(path: str) -> Figures:
    """400 evaluation tasks against every row."""
    from harness.auditing import run_audit
    from harness.datasets import open_dataset

    evals = open_dataset("arc1/evaluation")
    dataset = open_dataset(path)
    start = process_time()
    found = run_audit([dataset], [evals])
    rate = found["free"].n_train / (process_time() - start)
    return {"rows_per_cpu_second": rate, "minutes_for_400k_rows": 400_000 / rate / 60, **memory()}


def tokens(n_tasks: int) -> Figures:
    """Samples of ARC-AGI-1 training tasks under fresh views, every one built once by either way."""
    from harness.augment import training_view
    from harness.datasets import open_dataset
    from harness.encoding import DEFAULT_ENCODER, parse_encoder
    from harness.prompt import load_prompt
    from harness.tokens import PromptTokenizer
    from trainers.tiny_tokenizer import build_tokenizer

    dataset = open_dataset("arc1/training")
    tasks = [dataset.task(i % len(dataset.ids)) for i in range(n_tasks)]
    views = [training_view(Stream("view", i), len(task.train)).apply_task(task) for i, task in enumerate(tasks)]
    tokenizer, prompt = build_tokenizer(), load_prompt("output-from-examples-v1")
    figures: Figures = {}
    for name, fast in (("tokenizer", False), ("cached_segments", True)):
        start = perf_counter()
        built = PromptTokenizer(tokenizer, prompt, parse_encoder(DEFAULT_ENCODER), fast=fast)
        figures[f"{name}_start_seconds"] = perf_counter() - start
        start = process_time()
        samples = [built.sample(view, 0) for view in views]
        figures[f"{name}_tokens_per_cpu_second"] = sum(len(sample.ids) for sample in samples) / (process_time() - start)
        figures[f"{name}_checksum"] = float(sum(map(sum, (sample.ids for sample in samples))))
    if figures["tokenizer_checksum"] != figures["cached_segments_checksum"]:
        raise SystemExit("the two ways disagree")
    return figures


def alone(function: Callable[..., Figures], argument: str | int) -> Figures:
    """Run in a fresh process, so that memory is its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, (argument,))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=320)
    parser.add_argument("--rows", type=int, default=400, help="tasks of which prompts are built")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    results: dict[str, Figures] = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ARC_BENCH_CACHE"] = str(Path(folder) / "cache")
        path = Path(folder) / "rows.jsonl"
        n = write_rows(path, options.megabytes)
        print(f"{n} rows, {path.stat().st_size / 1e6:.0f} MB", file=sys.stderr)
        steps: list[tuple[str, Callable[..., Figures], str | int]] = [
            ("index built, then random tasks", open_rows, str(path)),
            ("index reopened, then random tasks", open_rows, str(path)),
            ("json.loads of every line", load_list, str(path)),
            ("audit against arc1/evaluation", audit, str(path)),
            ("prompt building", tokens, options.rows),
        ]
        for name, function, argument in steps:
            results[name] = alone(function, argument)
            print(name, *(f"    {key}: {value:,.3f}" for key, value in results[name].items()), sep="\n")
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""What a finished sweep writes: its record, its report, and its table as JSON."""

from __future__ import annotations

import json
from pathlib import Path

from harness.cli.workflows.steps import run_bench
from harness.cli.workflows.sweep.sweep_file import Sweep
from harness.core.files import write_atomically
from reports.loading.runs import load_sections
from reports.loading.sweep import read_sweep, sweep_tables, tables_json

RECORD = "sweep.json"
RESULTS = "results.json"
"""The table of the sweep with all comparisons, for another program."""


def write_sweep_report(plan: Sweep, runs: list[Path]) -> None:
    """Write the record of the sweep, its report, and its table as JSON.

    Args:
        runs: the run folders of the base model, if it is benched, and of all adapters.
    """
    content, record = plan.record(), plan.out / RECORD
    write_atomically(record, f"{content.model_dump_json(indent=2)}\n".encode())
    words = [*map(str, runs), "-o", str(plan.out / "report.md"), "--title", plan.title, "--sweep", str(record)]
    words += ["--training", str(plan.out / "trained")]
    words += ["--reference", plan.reference] if plan.reference else []
    run_bench("report", *words)
    first = content.rows[0].models[0]
    tables = tables_json(sweep_tables(load_sections(runs, first), read_sweep(record)))
    write_atomically(plan.out / RESULTS, (json.dumps(tables, indent=2) + "\n").encode())

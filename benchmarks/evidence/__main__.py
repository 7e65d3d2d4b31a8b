"""Evidence for docs/candidates.md, on the tiny base: about fifteen minutes of two cores.

    python -m benchmarks.evidence [--quick] [--work FOLDER]

Trains adapters for a few steps only, serves them in float32, samples the same tasks with ``--search dfs`` and at
temperature 1, rescores the candidates, and writes benchmarks/candidates_evidence.md, which holds what was run so far.
Finished steps are skipped.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.common.entry import FOLDER
from benchmarks.evidence.experiment import (
    QUICK,
    Adapter,
    Extent,
    missing_steps,
    prepare_real_tasks,
    register,
    rescore,
    sample,
    train,
)
from benchmarks.evidence.page import page
from harness.cli.workflows.steps import run_bench

STAGES = ("train", "sample", "page")
"""``sample`` rescores too."""


def main() -> int:
    """Run the missing steps and write the page."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.evidence", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few adapters and tasks; the page is only printed")
    parser.add_argument("--work", type=Path, default=Path("runs/evidence"), help="folder (default runs/evidence)")
    parser.add_argument("--only", choices=STAGES, help="one stage, whose earlier ones are done")
    options = parser.parse_args()
    extent = QUICK if options.quick else Extent()
    work = (options.work / "quick" if options.quick else options.work).resolve()
    stages = STAGES if options.only is None else (options.only,)
    if "train" in stages:
        work.mkdir(parents=True, exist_ok=True)
        prepare_real_tasks(work, extent.real_tasks)
        for adapter in extent.adapters:
            train(work, adapter)
    if "sample" in stages and list(missing_steps(work, extent)):
        _run_on_server(work, extent)
    if "page" in stages:
        text = page(work, extent)
        print(text)
        if not options.quick:
            (FOLDER / "candidates_evidence.md").write_text(text, encoding="utf-8")
    return 0


def _run_on_server(work: Path, extent: Extent) -> None:
    """Make the runs and rescores that are missing."""
    from serve.launch.process import serving
    from trainers.tiny.train import shipped_path

    registry = register(work, [(adapter, _folder(work, adapter)) for adapter in extent.adapters])
    with serving(shipped_path(), registry, log=work / "server.log", progress=print, dtype="float32") as server:
        for adapter in extent.adapters:
            run_bench("adapters", "load", adapter.name, "--server", server.url)
        for data, draw, step in missing_steps(work, extent):
            if step == "run":
                sample(work, server.url, data, draw, extent)
            else:
                rescore(work, server.url, data, draw)


def _folder(work: Path, adapter: Adapter) -> Path:
    return work / "trained" / adapter.name


if __name__ == "__main__":
    sys.exit(main())

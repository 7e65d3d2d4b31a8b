"""A training without torch, ``counting.py FOLDER STEPS``: counts in a file, resumes there, and stops at SIGTERM."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from harness.cli.workflows.cluster.node import NodeWork, code_versions, file_digest
from trainers.store.run_folder import lock_folder

ROOT = Path(__file__).parents[3]
STEP_SECONDS = 0.25


def counting_work(root: Path, name: str, steps: int) -> NodeWork:
    """Return the work of counting to ``steps`` in a folder of its own; a negative number fails."""
    recipe = root / f"{name}.txt"
    recipe.write_text(f"{steps}\n")
    (root / name).mkdir()
    return NodeWork(
        name=name,
        directory=str(ROOT),
        input=str(recipe),
        input_digest=file_digest(recipe),
        folder=str(root / name),
        log=str(root / f"{name}.log"),
        versions=code_versions(),
        arguments=(__file__, str(root / name), str(steps)),
    )


def main(folder: Path, steps: int) -> None:
    """Count, a line per step; the lines of all attempts are in ``steps.txt``."""
    if steps < 0:
        print(f"first line\nerror: {steps} steps cannot be counted", file=sys.stderr)
        raise SystemExit(3)
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    counted = folder / "steps.txt"
    with lock_folder(folder), counted.open("a") as file:
        for step in range(len(counted.read_text().splitlines()), steps):
            time.sleep(STEP_SECONDS)
            file.write(f"{step} {os.getpid()}\n")
            file.flush()
            print(f"step {step}", flush=True)
            if stopped:
                print("stopped by SIGTERM", flush=True)
                raise SystemExit(130)
        (folder / "manifest.json").write_text("{}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))

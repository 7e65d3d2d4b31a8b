"""Check in ten minutes, without downloads, that training and serving work on this machine's GPU.

    python -m benchmarks.gpu [--device cpu --small]

Trains a random model of the shape of Qwen2.5-0.5B and compares with a bare loop, trains two adapters of the tiny base,
serves both models with their adapters, compares log-probabilities with PEFT, swaps under load, and benches. A failed
step is recorded with its reason, the other steps still run, and the exit status is 1. With --device cpu --small all
sizes are minimal, which tests the steps but says nothing about a GPU.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path

from benchmarks.common.entry import FOLDER
from benchmarks.gpu.contents import serve_big, serve_tiny, train_beside_a_loop, train_tiny
from benchmarks.gpu.steps import Check, Figures, StepFailed, page
from harness.core.gpus import list_gpus
from serve.launch.machine import detect_machine


def look_at_the_machine(check: Check) -> Figures:
    """Return the GPU as nvidia-smi reports it, and vLLM's build."""
    device = detect_machine().device
    if device != check.device:
        raise StepFailed(f"the installed vLLM is built for {device}, and --device is {check.device}")
    gpus = list_gpus() or []
    return {"vLLM for": device, "GPU": "; ".join(gpu.as_text() for gpu in gpus) or "none"}


def main() -> int:
    """Run every step and write the page; return 1 if one failed."""
    arguments = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    arguments.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    arguments.add_argument("--small", action="store_true", help="minimal sizes")
    arguments.add_argument("--minutes", type=float, default=10, help="time limit (default 10)")
    arguments.add_argument(
        "--work", type=Path, default=Path("runs/gpu-check"), help="replaced (default runs/gpu-check)"
    )
    arguments.add_argument("--page", type=Path, help="default: benchmarks/gpu.md, in --work with --device cpu")
    options = arguments.parse_args()
    shutil.rmtree(options.work, ignore_errors=True)
    options.work.mkdir(parents=True)
    ends = time.monotonic() + 60 * options.minutes
    check = Check(options.work.resolve(), options.device, options.small, ends)
    check.step("the machine", look_at_the_machine)
    check.step("training beside a bare loop", train_beside_a_loop)
    check.step("training the tiny base", train_tiny)
    check.step("serving the tiny base", serve_tiny)
    check.step("serving the random model", serve_big)
    target = options.page or (FOLDER if options.device == "cuda" else options.work) / "gpu.md"
    text = page(check, sys.argv[1:])
    target.write_text(text, encoding="utf-8")
    print(text)
    return int(any(outcome.failed for outcome in check.outcomes))


if __name__ == "__main__":
    sys.exit(main())

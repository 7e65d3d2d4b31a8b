"""The demo itself, with real processes: what it shows, what it reuses, and that it stops its server."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TASKS = 12
COMMAND = [sys.executable, "-m", "harness.cli", "demo", "--tasks", str(TASKS), "--out"]


def accuracy(out: Path, dataset: str, model: str) -> float:
    """The accuracy of a model in one of the demo's runs."""
    results = json.loads((out / "bench" / dataset / "results.json").read_text())
    return float(results["models"][model]["metrics"]["accuracy"]["value"])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished demo."""
    out = tmp_path_factory.mktemp("demo") / "out"
    done = subprocess.run([*COMMAND, str(out)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return out


@pytest.mark.slow
def test_adapters_differ_for_a_visible_reason(finished: Path) -> None:
    for family in ("cross", "diagonal"):
        assert accuracy(finished, family, family) > 0.8
        assert accuracy(finished, family, "mix") > 0.7
        assert accuracy(finished, family, "tiny-base") < 0.1
        other = {"cross": "diagonal", "diagonal": "cross"}[family]
        assert accuracy(finished, family, other) < accuracy(finished, family, family) - 0.2
    assert accuracy(finished, "edge", "tiny-base") > 0.5
    report = (finished / "report.md").read_text()
    for text in ("| cross ", "is better than", "BCa bootstrap", "How to go on", "arc1/evaluation"):
        assert text in report
    for name in re.findall(r"\]\(([^)]+\.png)\)", report):
        assert (finished / name).stat().st_size > 10_000


@pytest.mark.slow
def test_a_second_call_does_no_work_again(finished: Path) -> None:
    watched = [*finished.glob("trained/*/adapter_model.safetensors"), *finished.glob("bench/*/predictions.jsonl")]
    watched.append(finished / "server.log")
    before = [path.stat().st_mtime_ns for path in watched]
    report = (finished / "report.md").read_bytes()
    done = subprocess.run([*COMMAND, str(finished)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [path.stat().st_mtime_ns for path in watched] == before
    assert (finished / "report.md").read_bytes() == report


@pytest.mark.slow
def test_interrupt_stops_the_server_and_the_next_call_goes_on(finished: Path) -> None:
    run = finished / "bench" / "cross"
    whole = (run / "results.json").read_bytes()
    lines = (run / "predictions.jsonl").read_bytes().splitlines(keepends=True)
    (run / "results.json").unlink()
    (run / "predictions.jsonl").write_bytes(b"".join(lines[:100]) + lines[100][:20])
    child = subprocess.Popen(
        [*COMMAND, str(finished)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith("serving at"):
            break
    os.killpg(child.pid, signal.SIGINT)
    rest = child.stdout.read()
    assert child.wait(90) == 130, rest
    assert not servers_of(finished)
    done = subprocess.run([*COMMAND, str(finished)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert not servers_of(finished)
    again, before = json.loads((run / "results.json").read_bytes()), json.loads(whole)
    assert again["models"] == before["models"]


def servers_of(out: Path) -> list[str]:
    """Command lines of servers that still use this demo's registry, after a grace of a few seconds."""
    deadline = time.monotonic() + 5
    while True:
        found = []
        for entry in Path("/proc").glob("[0-9]*/environ"):
            try:
                text = entry.read_bytes() + entry.with_name("cmdline").read_bytes()
            except OSError:
                continue
            if str(out / "adapters").encode() in text:
                found.append(entry.parent.name)
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.1)

"""A sweep with real processes that is killed during training, during a run and before its report resumes each time."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.cli import cli
from harness.cli.entry import run_cli
from harness.core.random_stream import Stream
from tests.cli.test_demo import servers_of
from tests.faults.matrix import count_cases
from tests.support.commands import wait_until
from tests.support.training.train_runs import last_error_line
from tests.support.vllm.dtypes import DTYPE

SWEEP: dict[str, Any] = {
    "original": "toy/cross#n=50",
    "added": "toy/diagonal#n=50",
    "original_weight": [1, 0],
    "seeds": [0, 1],
    "recipe": {
        "model": "tiny", "prompt": "compact-v0", "encoder": "MinimalGridEncoder()", "max_steps": 3, "batch_size": 4,
        "max_seq_len": 512, "dtype": "float32", "lora": {"rank": 4},
    },
    "serve": {"dtype": DTYPE},
    "evaluation": {"dataset": "toy/cross/evaluation#n=12", "n": 8, "base": True},
}  # fmt: skip
NAMES = ["w100-s0", "w100-s1", "w0-s0", "w0-s1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a folder with a sweep file, and kill its servers at the end."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "sweep.yaml").write_text(yaml.safe_dump({**SWEEP, "out": str(folder / "out")}))
    yield folder
    for pid in servers_of(folder / "out"):
        os.kill(int(pid), signal.SIGKILL)


def command(folder: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "harness.cli", "sweep", str(folder / "sweep.yaml"), *options]


def killed_once(folder: Path, reached: Callable[[], bool]) -> None:
    """Start the sweep, and kill it with all its processes once ``reached`` is true."""
    with (folder / "output").open("ab") as output:
        child = subprocess.Popen(command(folder), stdout=output, stderr=output, start_new_session=True)
    deadline = time.monotonic() + 300
    while not reached():
        going_on = child.poll() is None and time.monotonic() < deadline
        assert going_on, (folder / "output").read_text()[-3000:]
        time.sleep(0.02)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    for pid in servers_of(folder / "out"):  # the server is a process group of its own
        os.kill(int(pid), signal.SIGKILL)


@pytest.mark.slow
def test_a_sweep_killed_three_times_does_nothing_twice(folder: Path) -> None:
    """kill -9 of a sweep during training, during a run and before its report: it finishes, and does nothing twice."""
    out = folder / "out"
    first, lines = out / "trained" / NAMES[0], out / "bench" / NAMES[1] / "predictions.jsonl"
    killed_once(folder, lambda: (first / "manifest.json").exists())
    trained = (first / "manifest.json").stat()
    killed_once(folder, lambda: lines.exists() and lines.read_bytes().count(b"\n") > 20)
    before = lines.read_bytes()
    done_already = (out / "bench" / NAMES[0] / "results.json").stat().st_mtime_ns
    killed_once(folder, (out / "sweep.json").exists)
    finished = subprocess.run(command(folder), capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    now = (first / "manifest.json").stat()
    assert (now.st_ino, now.st_mtime_ns) == (trained.st_ino, trained.st_mtime_ns), "the first adapter was trained again"
    assert (out / "bench" / NAMES[0] / "results.json").stat().st_mtime_ns == done_already
    whole = before[: before.rindex(b"\n") + 1]
    assert lines.read_bytes().startswith(whole), "predictions were lost"
    for name in NAMES:
        records = map(json.loads, (out / "bench" / name / "predictions.jsonl").open())
        keys = [(one["task_id"], one["test_index"], one["sample_index"]) for one in records]
        assert len(keys) == len(set(keys)) == 12 * 8
    assert not servers_of(out)
    count_cases(3)


@pytest.mark.slow
def test_the_report_has_the_table_of_mixtures(folder: Path) -> None:
    """The report of a killed sweep has its table of mixtures and every picture."""
    report = (folder / "out" / "report.md").read_text()
    header = next(line for line in report.splitlines() if line.startswith("| original datasets weight"))
    assert [cell.strip() for cell in header.strip("|").split("|")][1:5] == ["accuracy", "pass_n", "vote_2", "vote_1"]
    assert re.search(r"^\| 100 % +\|.*\n\| 0 % +\|", report, re.MULTILINE)
    for name in re.findall(r"\]\(([^)]+\.png)\)", report):
        assert (folder / "out" / name).stat().st_size > 5_000, name


@pytest.mark.slow
def test_another_evaluation_is_refused_and_a_finished_sweep_does_no_work(folder: Path) -> None:
    """Another evaluation in a sweep's folder is refused; running a finished sweep again changes nothing."""
    refused = subprocess.run(command(folder, "--set", "evaluation.n=4"), capture_output=True, text=True)
    assert refused.returncode == 2
    assert "changed: n" in refused.stderr
    report = (folder / "out" / "report.md").read_bytes()
    watched = [*(folder / "out").glob("trained/*/adapter_model.safetensors"), folder / "out" / "server.log"]
    before = [path.stat().st_mtime_ns for path in watched]
    again = subprocess.run(command(folder), capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert [path.stat().st_mtime_ns for path in watched] == before
    assert (folder / "out" / "report.md").read_bytes() == report


def weights(run: Path) -> str:
    """Return the content hash of the only model of a run."""
    return str(json.loads((run / "manifest.json").read_bytes())["config"]["models"][0]["hash"])


@pytest.mark.slow
def test_retrained_adapters_are_benched_again(folder: Path) -> None:
    """A sweep with a changed recipe trains again, benches the new adapters, and keeps the old runs aside."""
    bench, base = folder / "out" / "bench", folder / "out" / "bench-base" / "predictions.jsonl"
    old, base_time = {name: weights(bench / name) for name in NAMES}, base.stat().st_mtime_ns
    again = subprocess.run(
        command(folder, "--set", "recipe.max_steps=4", "--set", "recipe.resume=false"), capture_output=True, text=True
    )
    assert again.returncode == 0, again.stderr[-3000:]
    for name in NAMES:
        assert weights(bench / name) != old[name]
        assert weights(bench / f"{name}.before-1") == old[name]
    assert base.stat().st_mtime_ns == base_time, "the base, which is the same, was benched again"
    report = (folder / "out" / "report.md").read_text()
    assert all(weights(bench / name)[:12] in report and old[name][:12] not in report for name in NAMES)


@pytest.mark.parametrize("left", [0, 1, 40])
def test_an_unreadable_evaluation_is_an_error(tmp_path: Path, left: int, capsys: pytest.CaptureFixture[str]) -> None:
    """A sweep with an unreadable record of its evaluation refuses to resume, with one error that names the file."""
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump({**SWEEP, "out": str(tmp_path / "out")}))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "evaluation.json").write_text('{"dataset": "toy/cross/evaluation#n=12", "n": 8}'[:left])
    assert run_cli(cli, ["sweep", str(tmp_path / "sweep.yaml")]) == 2
    assert "evaluation.json is damaged" in last_error_line(capsys.readouterr().err)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["evaluation.json"]


def working_in(folder: Path) -> list[str]:
    """Return the command lines of processes that have a path in a folder as an argument."""
    commands = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if f"{folder}/".encode() in (words := entry.read_bytes()):
                commands.append(words.decode())
    return commands


def predicted(run: Path) -> list[Any]:
    """Return the grids of a run by key."""
    records = [json.loads(line) for line in (run / "predictions.jsonl").read_bytes().splitlines()]
    return sorted([one["task_id"], one["test_index"], one["sample_index"], one["grid"]] for one in records)


@pytest.mark.long
def test_killed_at_random_moments(tmp_path: Path) -> None:
    """kill -9 of a sweep at random moments, alone or with its children: no server is left; resuming completes it."""
    one = {**SWEEP, "original_weight": [1], "seeds": [0], "evaluation": {**SWEEP["evaluation"], "base": False}}
    for name in ("undisturbed", "killed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "sweep.yaml").write_text(yaml.safe_dump({**one, "out": str(tmp_path / name / "out")}))
    began = time.monotonic()
    subprocess.run(command(tmp_path / "undisturbed"), check=True, capture_output=True)
    seconds, folder = time.monotonic() - began, tmp_path / "killed"
    moments, killed = [Stream("sweep", k).uniform() for k in range(6)], 0
    for k, moment in enumerate(moments):
        with (tmp_path / "output").open("ab") as output:
            child = subprocess.Popen(command(folder), stdout=output, stderr=output, start_new_session=True)
        with suppress(subprocess.TimeoutExpired):
            child.wait(moment * seconds)
        with suppress(ProcessLookupError):  # it is through
            (os.killpg if k % 2 else os.kill)(child.pid, signal.SIGKILL)
        child.wait()
        # What it had started goes on alone and ends: its server at once, a trainer or a run when it is done.
        wait_until(lambda: not servers_of(folder / "out") and not working_in(folder / "out"), seconds=240)
        count_cases(int(child.returncode < 0))
        killed += child.returncode < 0
    assert killed >= 2
    finished = subprocess.run(command(folder), capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr[-3000:]
    digests = [
        json.loads((tmp_path / name / "out" / "trained" / "w100" / "manifest.json").read_bytes())["weights_sha256"]
        for name in ("undisturbed", "killed")
    ]
    assert digests[0] == digests[1]
    assert predicted(folder / "out" / "bench" / "w100") == predicted(
        tmp_path / "undisturbed" / "out" / "bench" / "w100"
    )
    assert (folder / "out" / "report.md").exists()

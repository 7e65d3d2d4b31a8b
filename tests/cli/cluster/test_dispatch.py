"""Works on a real Ray cluster of two nodes, with a training that only counts: failures, a lost node, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.cli.cluster.counting import ROOT
from tests.support.commands import wait_until
from tests.support.ray_cluster import RayCluster, needs_ray, ray_cluster

pytestmark = [pytest.mark.slow, needs_ray]
SECONDS = 200.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with ray_cluster(2) as running:
        yield running


@contextmanager
def counting(cluster: RayCluster, root: Path, *counts: str) -> Iterator[subprocess.Popen[str]]:
    """Count on the cluster while the block runs."""
    command = [sys.executable, "-m", "tests.cli.cluster.counting_driver", f"ray:{cluster.address}", str(root), *counts]
    with subprocess.Popen(
        command, cwd=ROOT, env=cluster.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def log(root: Path, name: str) -> str:
    path = root / f"{name}.log"
    return path.read_text() if path.exists() else ""


def attempts(root: Path, name: str) -> list[list[int]]:
    """Return the steps that each process counted, in order."""
    by_process: dict[str, list[int]] = {}
    for line in (root / name / "steps.txt").read_text().splitlines():
        step, process = line.split()
        by_process.setdefault(process, []).append(int(step))
    return list(by_process.values())


def node_of(root: Path, name: str) -> str:
    """Return the node that a log named last."""
    return log(root, name).rpartition("=== running on ")[2].partition("(")[2][:6]


def test_ctrl_c_lets_every_training_save_its_steps(cluster: RayCluster, tmp_path: Path) -> None:
    """Ctrl-C stops all trainings at their next step, and what waited never begins; the same command resumes."""
    with counting(cluster, tmp_path, "a=1000", "b=1000", "waiting=5") as process:
        wait_until(lambda: "step 3" in log(tmp_path, "a") and "step 3" in log(tmp_path, "b"), SECONDS)
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=SECONDS)
    assert process.returncode != 0, "the program of this test does not catch KeyboardInterrupt"
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert output == ""
    for name in "ab":
        assert log(tmp_path, name).rstrip().endswith("stopped by SIGTERM")
        assert not (tmp_path / name / "manifest.json").exists()
    assert not log(tmp_path, "waiting")


def test_without_a_cluster_one_is_started_here_and_leaves_nothing(tmp_path: Path) -> None:
    """A cluster of this machine alone is started, has no dashboard, and is gone afterwards with all its files."""
    home, temp = tmp_path / "home", Path(tempfile.mkdtemp(prefix="r"))
    home.mkdir()
    (tmp_path / "out").mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    patience = {"RAY_raylet_start_wait_time_s": "300", "RAY_agent_register_timeout_ms": "300000"}
    environment = {**kept, **patience, "RAY_ADDRESS": "local", "HOME": str(home), "TMPDIR": str(temp)}
    command = [sys.executable, "-m", "tests.cli.cluster.counting_driver", "ray", str(tmp_path / "out"), "a=3", "bad=-1"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    assert {line["name"]: line["status"] for line in map(json.loads, done.stdout.splitlines())} == {"a": 0, "bad": 3}
    assert "starting one on this machine" in done.stderr
    assert not list(home.iterdir()), "files in HOME"
    assert not list(temp.glob("ray-*")), "files of Ray are left"
    temp.rmdir()
    commands = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    assert not [command for command in commands if str(temp) in command], "processes of Ray are left"


def test_nodes_that_cannot_train_say_why(cluster: RayCluster, tmp_path: Path) -> None:
    """A node without the shared folder, the directory or the same code refuses the training in one line."""
    program = (
        "import sys; from dataclasses import replace; from pathlib import Path; import tests.cli.cluster.counting as c;"
        "import tests.cli.cluster.counting_driver as d; make = c.counting_work;"
        "changes = {'away': dict(input='/nowhere/recipe.yaml'), 'elsewhere': dict(directory='/nowhere'),"
        " 'old': dict(versions={'Python': '2.7.18', 'wheel of fortune': '1'})};"
        "d.counting_work = lambda root, name, steps: replace(make(root, name, steps), **changes[name]);"
        "d.main(sys.argv[1], Path(sys.argv[2]), ['away=1', 'elsewhere=1', 'old=1'])"
    )
    command = [sys.executable, "-c", program, f"ray:{cluster.address}", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=cluster.environment, capture_output=True, text=True, timeout=SECONDS)
    outcomes = {line["name"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert all(line["status"] == 1 and line["node"] for line in outcomes.values())
    messages = {name: line["message"].partition(") ")[2] for name, line in outcomes.items()}
    assert messages["away"].startswith("does not see /nowhere/recipe.yaml: --out must be in a folder that all nodes")
    assert messages["elsewhere"].startswith("has no folder /nowhere, where the command was started")
    python = sys.version.split()[0]
    assert messages["old"].startswith(
        f"would train with other code: Python {python} instead of 2.7.18, wheel of fortune is missing instead of 1"
    )
    assert not list(tmp_path.glob("*/steps.txt"))


def test_a_lost_node_and_a_failure(cluster: RayCluster, tmp_path: Path) -> None:
    """The work of a killed node is placed again and resumes; one that fails is named; the others are done once.

    The last test: it leaves the cluster with one node.
    """
    (tmp_path / "c.log").write_text("=== running on old (000000)\n")  # of an earlier command
    with counting(cluster, tmp_path, "a=80", "b=80", "bad=-1", "c=3") as process:
        wait_until(lambda: "step 8" in log(tmp_path, "a") and "step 8" in log(tmp_path, "b"), SECONDS)
        assert {node_of(tmp_path, "a"), node_of(tmp_path, "b")} == set(cluster.nodes)
        lost = node_of(tmp_path, "b")
        cluster.kill(lost)
        output, errors = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, errors
    outcomes: dict[str, Any] = {line["name"]: line for line in map(json.loads, output.splitlines())}
    assert {name: line["status"] for name, line in outcomes.items()} == {"a": 0, "b": 0, "bad": 3, "c": 0}
    assert outcomes["bad"]["message"] == "-1 steps cannot be counted"
    assert lost not in outcomes["b"]["node"]
    assert [len(attempts(tmp_path, name)) for name in "abc"] == [1, 2, 1]
    for name, steps in (("a", 80), ("b", 80), ("c", 3)):
        assert [step for each in attempts(tmp_path, name) for step in each] == list(range(steps))
    assert "again; the node before was lost" in errors
    assert "failed bad on" in errors
    assert "old (000000)" not in errors
    assert "state-dump" not in errors, "Ray's own lines reach the terminal"

"""Trainings of a sweep and of test-time training on two nodes, one of which is killed: as on one machine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.core.digests import content_hash
from tests.cli.ttt.test_ttt_options import RECIPE
from tests.faults.test_sweep import NAMES, SWEEP
from tests.support.commands import wait_until
from tests.support.ray_cluster import RayCluster, needs_ray, ray_cluster
from tests.support.runs.ttt_runs import IDS, Site, assert_same, records
from tests.support.servers.adapter_server import AdapterServer

pytestmark = [pytest.mark.long, needs_ray]
SECONDS = 900.0
ONLY_TRAINS = """
import sys
from pathlib import Path
from harness.cli.workflows.cluster.address import parse_address
from harness.cli.workflows.cluster.options import Placement
from harness.cli.workflows.sweep.sweep_file import load_sweep
from harness.cli.workflows.sweep.sweep_training import train_on_cluster
plan = load_sweep(Path(sys.argv[1]), ["original_weight=[1]"])
train_on_cluster(plan, Placement(parse_address("ray:" + sys.argv[2])))
"""
"""``bench sweep --on`` of the first row without what follows the training."""
STEPS = 40
PLAN: dict[str, Any] = {
    **SWEEP,
    "recipe": {**SWEEP["recipe"], "max_steps": STEPS, "save_steps": 2, "threads": 1, "logging_steps": 1},
    "evaluation": {**SWEEP["evaluation"], "n": 2, "base": False},
}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[RayCluster]:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with ray_cluster(2) as running:
        yield running


def bench(*words: object, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """Start a command."""
    command = [sys.executable, "-m", "harness.cli", *map(str, words)]
    return subprocess.Popen(
        command, env=environment or dict(os.environ), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def sweep_file(root: Path) -> Path:
    """Return the file of the sweep with a folder for its results beside it."""
    root.mkdir()
    path = root / "sweep.yaml"
    path.write_text(yaml.safe_dump({**PLAN, "out": str(root / "out")}))
    return path


def log(out: Path, name: str) -> str:
    path = out / "logs" / f"{name}.log"
    return path.read_text() if path.exists() else ""


def test_a_sweep_on_a_cluster_is_that_of_one_machine(cluster: RayCluster, tmp_path: Path) -> None:
    """The table of a sweep that was trained on a cluster is that of one machine, in every figure."""
    outs = []
    for name, words in (("alone", ()), ("spread", ("--on", f"ray:{cluster.address}"))):
        done = bench(
            "sweep", sweep_file(tmp_path / name), "--set", "recipe.max_steps=6", *words, environment=cluster.environment
        )
        _, errors = done.communicate(timeout=SECONDS)
        assert done.returncode == 0, errors[-3000:]
        outs.append(tmp_path / name / "out")
    for file in ("sweep.json", "results.json"):
        assert (outs[0] / file).read_bytes() == (outs[1] / file).read_bytes()
    assert [weights(outs[0], name) for name in NAMES] == [weights(outs[1], name) for name in NAMES]


def test_adapters_with_a_lost_node_are_those_of_one_machine(cluster: RayCluster, tmp_path: Path) -> None:
    """A node is killed after a checkpoint of its training: the adapters are those of one machine, each trained once."""
    alone, two = sweep_file(tmp_path / "alone"), ("--set", "original_weight=[1]")
    for row in range(2):
        here = bench("sweep", alone, *two, "--row", row)
        assert here.wait(SECONDS) == 0, here.communicate()[1][-3000:]
    path, out = sweep_file(tmp_path / "spread"), tmp_path / "spread" / "out"
    command = [sys.executable, "-c", ONLY_TRAINS, str(path), cluster.address]
    with subprocess.Popen(command, env=cluster.environment, stderr=subprocess.PIPE, text=True) as spread:

        def node_to_kill() -> str | None:
            for name in NAMES[:2]:
                if list((out / "trained" / name / "checkpoints").glob("checkpoint-*")):
                    return log(out, name).rpartition("=== running on ")[2].partition("(")[2][:6]
            return None

        wait_until(lambda: node_to_kill() or spread.poll() is not None, SECONDS)
        lost = node_to_kill()
        assert lost is not None
        cluster.kill(lost)
        _, errors = spread.communicate(timeout=SECONDS)
    assert spread.returncode == 0, errors[-3000:]
    starts = {name: log(out, name).count("=== running on ") for name in NAMES[:2]}
    assert sorted(starts.values()) == [1, 2]
    again = next(name for name, count in starts.items() if count == 2)
    assert "resuming after step" in log(out, again)
    assert re.search(rf"training {again} on .* again; the node before was lost", errors)
    for name in NAMES[:2]:
        steps = [int(step) for step in re.findall(rf"^step (\d+)/{STEPS}:", log(out, name), re.MULTILINE)]
        assert steps.count(STEPS) == 1, f"{name} was trained twice to its end"
        assert weights(out, name) == weights(tmp_path / "alone" / "out", name)


def weights(out: Path, name: str) -> str:
    """Return the digest of an adapter's weights."""
    return str(json.loads((out / "trained" / name / "manifest.json").read_bytes())["weights_sha256"])


def test_a_training_that_fails_is_named_and_the_others_are_trained(cluster: RayCluster, tmp_path: Path) -> None:
    """One adapter fails: it is named, the others are trained, nothing is served, and the status is its own."""
    path, out = sweep_file(tmp_path / "fails"), tmp_path / "fails" / "out"
    bad = out / "trained" / NAMES[0]
    bad.mkdir(parents=True)
    (bad / "manifest.json").write_text("{}")  # a result of which nothing says how it came about
    done = bench(
        "sweep", path, "--set", "recipe.max_steps=2", "--on", f"ray:{cluster.address}", environment=cluster.environment
    )
    _, errors = done.communicate(timeout=SECONDS)
    assert done.returncode == 2
    assert f"error: {NAMES[0]} failed on " in errors
    assert "holds a finished result without training.json" in errors
    assert "stopped: 1 of 4 trainings failed; the same command resumes from here" in errors
    assert all((out / "trained" / name / "manifest.json").exists() for name in NAMES[1:])
    assert not (out / "bench").exists()


def test_groups_of_tasks_with_a_lost_node_are_those_of_one_machine(cluster: RayCluster, tmp_path: Path) -> None:
    """A node is killed while it trains a group: adapters and predictions are those of one machine."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps({**RECIPE, "ttt": {"steps": 12}}))
    with AdapterServer(tmp_path / "registry") as server:
        site = Site(server, tmp_path / "registry", recipe)
        alone, spread = tmp_path / "alone", tmp_path / "spread"
        one = bench(*site.words(alone))
        assert one.wait(SECONDS) == 0, one.communicate()[1][-3000:]
        words = [*site.words(spread), "--on", f"ray:{cluster.address}", "--tasks-per-group", 2]
        process = bench(*words, environment=cluster.environment)
        first = spread / "groups" / "0000"
        wait_until(lambda: (first / "adapters" / IDS[0]).exists() or process.poll() is not None, SECONDS)
        kept = content_hash(first / "adapters" / IDS[0])
        cluster.kill((first / "group.log").read_text().partition("(")[2][:6])
        _, errors = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, errors[-3000:]
        assert_same(spread, alone)
        assert records(spread)[IDS[0]].digest == kept
        assert "again; the node before was lost" in errors
        assert not (spread / "groups").exists()
        assert site.is_clean()

"""``--on``, ``--row`` and ``--rows`` without a cluster: addresses, resources, and what is refused."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from harness.cli.workflows.cluster.address import RayAddress, parse_address
from harness.cli.workflows.cluster.options import Placement
from harness.cli.workflows.cluster.resources import NodeResources, TrainingResources, choose_resources
from harness.core.errors import ClusterError, ConfigError
from tests.cli.ttt.test_ttt_options import RECIPE
from tests.faults.test_sweep import SWEEP
from tests.support.commands import run_bench
from tests.support.ray_cluster import needs_ray
from tests.support.training.train_runs import last_error_line

RAY = RayAddress()
HIDES_RAY = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "ray" else find(name, *more)
from harness.cli import cli
from harness.cli.entry import run_cli
sys.exit(run_cli(cli))
"""
"""A program that is ``bench`` on a machine without Ray."""


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Return the file of a sweep of four adapters."""
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump({**SWEEP, "out": str(tmp_path / "out")}))
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ray", None), ("ray:head:6379", "head:6379"), ("ray:10.0.0.7:1", "10.0.0.7:1"),
        ("ray:[fd00::7]:6379", "[fd00::7]:6379"), ("ray:node-1.cluster.local:65535", "node-1.cluster.local:65535"),
    ],
)  # fmt: skip
def test_addresses(text: str, expected: str | None) -> None:
    """The two forms of --on name the running cluster and one at an address."""
    assert parse_address(text).as_text() == expected


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("slurm", "by Ray only"), ("rays:head:1", "by Ray only"), ("", "by Ray only"), ("ray:", "no HOST:PORT"),
        ("ray:head", "no HOST:PORT"), ("ray:head:0", "no HOST:PORT"), ("ray:head:65536", "no HOST:PORT"),
        ("ray:he ad:1", "no HOST:PORT"), ("ray:head:6379/x", "no HOST:PORT"), ("ray://head:10001", "Ray Client"),
    ],
)  # fmt: skip
def test_wrong_addresses_are_refused(text: str, part: str) -> None:
    """Everything else is refused with what to write instead."""
    with pytest.raises(ConfigError, match=part) as caught:
        parse_address(text)
    assert "ray:HOST" in str(caught.value)


def test_a_wrong_address_is_one_line_and_wrong_use(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """bench refuses a wrong --on with exit status 2, before anything is written."""
    status, _, errors = run_bench(capsys, "sweep", sweep, "--on", "ray:nowhere")
    assert status == 2
    assert "'nowhere' is no HOST:PORT" in errors
    assert not (sweep.parent / "out").exists()


@needs_ray
@pytest.mark.parametrize("words", [("--on", "ray:127.0.0.1:{port}"), ("--on", "ray")])
def test_an_address_at_which_nothing_listens(
    words: tuple[str, str], sweep: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An address without a cluster, given or of RAY_ADDRESS, is one line that says how to start one there."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    status, _, errors = run_bench(capsys, "sweep", sweep, *(word.format(port=port) for word in words))
    assert status == 1
    assert f"nothing answers at 127.0.0.1:{port}" in last_error_line(errors)
    assert f"ray start --head --port={port}" in last_error_line(errors)


@needs_ray
def test_ray_address_of_another_form_is_refused(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """RAY_ADDRESS with an address of Ray Client is named as the culprit."""
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    status, _, errors = run_bench(capsys, "sweep", sweep, "--on", "ray")
    assert status == 1
    assert "RAY_ADDRESS=ray://head:10001 is no HOST:PORT" in last_error_line(errors)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["sweep", "ttt"])
def test_without_ray_the_extra_is_named(command: str, sweep: Path, tmp_path: Path) -> None:
    """Where Ray is not installed, --on is refused in one line with the extra's name; other commands still work."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE))
    words = {
        "sweep": ["sweep", sweep], "ttt": ["ttt", recipe, "--dataset", "toy/cross#n=2", "--out", tmp_path / "run"],
    }[command]  # fmt: skip
    command_line = [sys.executable, "-c", HIDES_RAY, *map(str, words), "--on", "ray"]
    refused = subprocess.run(command_line, capture_output=True, text=True)
    assert refused.returncode == 1
    assert refused.stderr == 'error: --on ray needs Ray, not installed here: pip install -e ".[ray]"\n'


@pytest.mark.parametrize("option", ["cpus", "gpus", "memory"])
def test_resources_without_a_cluster_are_refused(option: str, sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A resource of trainings without --on would have no effect."""
    status, _, errors = run_bench(capsys, "sweep", sweep, f"--{option}-per-training", 1)
    assert status == 2
    assert f"--{option}-per-training is of trainings on a cluster; give --on ray too" in last_error_line(errors)


@needs_ray
@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--tasks-per-group", "2"), "--tasks-per-group is of trainings on a cluster"),
        (("--on", "ray", "--schedule", "resident"), "leave --schedule out"),
    ],
)
def test_options_of_test_time_training(
    words: tuple[str, ...], part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Options of one machine and of a cluster do not go together."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE))
    status, _, errors = run_bench(
        capsys, "ttt", recipe, "--dataset", "toy/cross#n=2", "--out", tmp_path / "run", *words
    )
    assert status == 2
    assert part in last_error_line(errors)


def node(cpus: float, gpus: float = 0.0, gib: float = 64.0) -> NodeResources:
    return NodeResources("node", cpus, gpus, gib * 2**30)


@pytest.mark.parametrize(
    ("given_", "nodes", "threads", "processes", "expected"),
    [
        ({}, [node(8), node(4)], 2, 1, (2, 0)), ({}, [node(8), node(4), node(0)], None, 1, (4, 0)),
        ({}, [node(8, 2), node(4)], None, 1, (1, 1)), ({}, [node(8, 2)], 3, 2, (6, 2)), ({}, [node(8)], 3, 2, (6, 0)),
        ({"cpus": 5.0}, [node(8)], 3, 2, (5, 0)), ({"gpus": 0.0}, [node(8, 2)], None, 1, (8, 0)),
        ({"gpus": 0.5}, [node(8, 2)], None, 1, (1, 0.5)),
    ],
)  # fmt: skip
def test_default_resources(
    given_: dict[str, float], nodes: list[NodeResources], threads: int | None, processes: int, expected: Any
) -> None:
    """A training gets the recipe's threads and a GPU per process; without either, a whole small node."""
    chosen = choose_resources(Placement(RAY, **given_), nodes, threads, processes)
    assert (chosen.cpus, chosen.gpus) == expected


def test_what_no_node_has_is_refused() -> None:
    """Ray would wait for ever for what no node has; the message lists what there is."""
    nodes = [node(4), node(2, 1)]
    for more in ({"cpus": 8.0}, {"gpus": 2.0}, {"cpus": 4.0, "gpus": 1.0}, {"cpus": 1.0, "memory": 65.0}):
        with pytest.raises(ClusterError, match=r"no node has .* \(4 CPUs, 64 GiB on node; 2 CPUs, 1 GPU, 64 GiB"):
            choose_resources(Placement(RAY, **more), nodes, 1)
    assert choose_resources(Placement(RAY, 1.0, 1.0, 64.0), nodes, 1).memory == 64 << 30


@given(st.integers(0, 64), st.integers(0, 8), st.integers(1, 8), st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0]))
def test_as_many_trainings_fit_as_can_be_taken_away(cpus: int, gpus: int, each: int, gpu_each: float) -> None:
    """The number that fits is that of a loop which takes one after the other."""
    count, cpus_left, gpus_left = 0, float(cpus), float(gpus)
    while cpus_left >= each and gpus_left >= gpu_each:
        count, cpus_left, gpus_left = count + 1, cpus_left - each, gpus_left - gpu_each
    assert TrainingResources(each, gpu_each, 0).fit(node(cpus, gpus)) == count


def test_rows_are_counted_and_out_of_range_ones_refused(sweep: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--rows prints the number of adapters alone, and --row refuses a number that is none of them."""
    assert run_bench(capsys, "sweep", sweep, "--rows") == (0, "4\n", "")
    for words, part in (
        (("--row", 4), "--row 4: the sweep trains 4 adapters, 0 to 3"),
        (("--row", 0, "--on", "ray"), "--row trains one adapter on this machine; leave --on out"),
    ):
        status, _, errors = run_bench(capsys, "sweep", sweep, *words)
        assert status == 2
        assert part in last_error_line(errors)
    assert not (sweep.parent / "out").exists()

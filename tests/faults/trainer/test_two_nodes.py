"""Training over two nodes with torchrun: equal to one node, and exact again after either launcher was killed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from harness.core.digests import weights_digest
from tests.faults.matrix import count_cases
from tests.support.commands import wait_until
from tests.support.training.nodes import Node, missing_for_namespaces, two_nodes
from tests.support.training.train_runs import (
    FEW_STEPS,
    STEPS,
    TORCHRUN,
    Data,
    adapter_manifest,
    kill_tree,
    log_losses,
    log_steps,
    recipe_data,
    run_python,
    train_command,
)

pytestmark = pytest.mark.long
TIMEOUT = 1200
"""Seconds for one training run on a busy machine."""
LOST = "error: the connection to another training process failed"


@pytest.fixture(scope="module", params=["namespaces", "loopback"])
def nodes(request: pytest.FixtureRequest) -> Iterator[tuple[Node, Node]]:
    missing = missing_for_namespaces()
    if request.param == "namespaces" and missing is not None:
        pytest.skip(f"no network namespaces here ({missing}); run on loopback instead")
    if request.param == "loopback" and missing is None:
        pytest.skip("run in two network namespaces instead")
    with two_nodes() as pair:
        yield pair


class Training:
    """One training run by two launchers, of one process each.

    Args:
        interface: for GLOO_SOCKET_IFNAME; None for that of the node's address.
    """

    def __init__(self, nodes: tuple[Node, Node], data: Data, interface: str | None = None) -> None:
        self.output = Path(data["output_dir"])
        log = self.output / "log.jsonl"
        self._old = log.stat().st_ino if log.exists() else None  # a resumed run replaces the log
        arguments = train_command(data)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.logs = [self.output.with_suffix(f".node{rank}") for rank in (0, 1)]
        self.launchers = []
        for rank, (node, log) in enumerate(zip(nodes, self.logs, strict=True)):
            torchrun = ["-m", "torch.distributed.run", "--nnodes", "2", "--node_rank", str(rank)]
            torchrun += ["--nproc_per_node", "1", "--master_addr", nodes[0].address, "--master_port", str(port)]
            env = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
            env |= {"GLOO_SOCKET_IFNAME": interface or node.interface}
            command = [*node.prefix, sys.executable, *torchrun, *arguments]
            with log.open("wb") as file:
                process = subprocess.Popen(command, env=env, stdout=file, stderr=file, start_new_session=True)
            self.launchers.append(process)

    def wait(self) -> list[int]:
        """Wait until both launchers have ended and return their exit statuses."""
        end = time.monotonic() + TIMEOUT
        try:
            return [launcher.wait(max(1, end - time.monotonic())) for launcher in self.launchers]
        finally:
            for launcher in self.launchers:
                if launcher.poll() is None:
                    kill_tree(psutil.Process(launcher.pid))

    def wait_for(self, lines: int) -> None:
        """Wait until the log of this run has so many lines."""
        log = self.output / "log.jsonl"
        end = time.monotonic() + TIMEOUT
        while not log.exists() or log.stat().st_ino == self._old or log.read_bytes().count(b"\n") < lines:
            assert time.monotonic() < end
            assert all(launcher.poll() is None for launcher in self.launchers), self.text(0)
            time.sleep(0.02)

    def kill(self, rank: int) -> None:
        """Kill a launcher with its process."""
        kill_tree(psutil.Process(self.launchers[rank].pid))

    def text(self, rank: int) -> str:
        """Return the output of a node."""
        return self.logs[rank].read_text(encoding="utf-8", errors="replace")


def train_on(nodes: tuple[Node, Node], data: Data) -> Path:
    """Train to the end and return the folder of the adapter."""
    training = Training(nodes, data)
    assert training.wait() == [0, 0], training.text(0)[-3000:] + training.text(1)[-3000:]
    return training.output


def assert_same_bits(one: Path, other: Path) -> None:
    assert log_steps(one) == log_steps(other)
    assert weights_digest(one) == weights_digest(other) == adapter_manifest(other).weights_sha256


def test_two_nodes_train_as_two_processes_of_one_and_as_one(
    nodes: tuple[Node, Node], train_root: Path, qwen: Path, few_run: Path
) -> None:
    """Bit by bit as two processes of one node; as one process except for rounding."""
    output = train_on(nodes, recipe_data(qwen, train_root / "nodes", **FEW_STEPS))
    local = recipe_data(qwen, train_root / "local", **FEW_STEPS)
    done = run_python([*TORCHRUN, *train_command(local)])
    assert done.returncode == 0, done.stderr[-3000:]
    assert_same_bits(output, train_root / "local")
    assert [line["counts"] for line in log_steps(output)] == [line["counts"] for line in log_steps(few_run)]
    for one, two in zip(log_losses(few_run), log_losses(output), strict=True):
        assert abs(one - two) < 3e-4


def test_either_launcher_is_killed_and_training_resumes(nodes: tuple[Node, Node], train_root: Path, qwen: Path) -> None:
    """The other launcher ends with the reason, and both resume from the newest checkpoint to the same bits."""
    whole = train_on(nodes, recipe_data(qwen, train_root / "nodes-whole"))
    data = recipe_data(qwen, train_root / "nodes-cut")
    for lines, rank in ((9, 1), (16, 0)):
        training = Training(nodes, data)
        training.wait_for(lines)
        training.kill(rank)
        statuses = training.wait()
        assert statuses[rank] == -9
        assert statuses[1 - rank] not in (0, -9)
        assert LOST in training.text(1 - rank)
        assert not (training.output / "manifest.json").exists()
        count_cases(1)
    training = Training(nodes, data)
    assert training.wait() == [0, 0], training.text(0)[-3000:]
    assert "resuming after step 14" in training.text(0)
    assert_same_bits(training.output, whole)


def test_sigterm_to_one_launcher_stops_both_after_the_same_step(
    nodes: tuple[Node, Node], train_root: Path, qwen: Path
) -> None:
    """Neither takes the unfinished weights for the result: the folder of both is resumed."""
    data = recipe_data(qwen, train_root / "nodes-stopped")
    training = Training(nodes, data)
    training.wait_for(9)
    training.launchers[1].terminate()
    assert 0 not in training.wait()
    assert "stopped by a signal to another training process after step" in training.text(0)
    assert not (training.output / "manifest.json").exists()
    train_on(nodes, data)
    assert adapter_manifest(training.output).steps == STEPS


def test_nodes_that_cannot_connect_say_which_variable_names_the_interface(
    nodes: tuple[Node, Node], train_root: Path, qwen: Path
) -> None:
    """Gloo listens where the machine's name points, which in a namespace, as on many systems, is the machine itself."""
    if not nodes[0].prefix:
        pytest.skip("on loopback the nodes always reach each other")
    training = Training(nodes, recipe_data(qwen, train_root / "nodes-apart", **FEW_STEPS), interface="lo")
    # The first that fails to connect ends; the other would wait for half an hour.
    wait_until(lambda: any(launcher.poll() is not None for launcher in training.launchers), TIMEOUT)
    ended = [launcher.poll() is not None for launcher in training.launchers].index(True)
    assert training.launchers[ended].returncode == 1
    for launcher in training.launchers:
        if launcher.poll() is None:
            kill_tree(psutil.Process(launcher.pid))
            launcher.wait()
    assert LOST in training.text(ended)
    assert "GLOO_SOCKET_IFNAME" in training.text(ended)
    assert "harness/cli" not in training.text(ended)  # no traceback of ours

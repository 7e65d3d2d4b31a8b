"""A Ray cluster of several nodes on this machine, in a process of its own, any of whose nodes can be killed.

``python -m tests.support.ray_cluster NODES`` prints the address and the id of each node as JSON, reads a node's number
per line and kills that node with all its processes, and ends with its standard input.
"""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason='Ray is not installed here: pip install -e ".[ray]"'
)
_STORE = 80 << 20
_START_SECONDS = "300"
"""How long a node may take to start on a busy machine; Ray itself waits 30 s."""


@dataclass
class RayCluster:
    """A running cluster: a head without CPUs, and nodes with one CPU each.

    Attributes:
        address: for ``--on ray:ADDRESS``.
        nodes: the first six digits of each node's id, as displays show them.
        environment: for commands on the cluster; it has the cluster's token.
    """

    address: str
    nodes: list[str]
    environment: dict[str, str]
    _process: subprocess.Popen[str] = field(repr=False)

    def kill(self, node: str) -> None:
        """Kill a node, as if its machine had lost its power."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{self.nodes.index(node)}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "killed\n"


@contextmanager
def ray_cluster(nodes: int) -> Iterator[RayCluster]:
    """Run a cluster while the block runs."""
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        environment = {
            **os.environ, "RAY_TMPDIR": folder, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0",
            "RAY_raylet_start_wait_time_s": _START_SECONDS,
            "RAY_agent_register_timeout_ms": f"{_START_SECONDS}000",
        }  # fmt: skip
        command = [sys.executable, "-m", "tests.support.ray_cluster", str(nodes)]
        with subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            started = json.loads(process.stdout.readline())
            yield RayCluster(started["address"], started["nodes"], environment, process)
            assert process.stdin is not None
            process.stdin.close()
            process.wait(60)


def _settings() -> dict[str, int]:
    """Return the settings of a node; its helpers get ports, which a raylet awaits for some seconds only otherwise."""
    names = ("dashboard_agent_listen_port", "metrics_agent_port", "metrics_export_port", "runtime_env_agent_port")
    sockets = [socket.socket() for _ in names]
    for each in sockets:
        each.bind(("", 0))
    ports = {name: each.getsockname()[1] for name, each in zip(names, sockets, strict=True)}
    for each in sockets:
        each.close()
    return {"object_store_memory": _STORE, **ports}


def main(count: int) -> None:
    """Run the cluster until standard input ends."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **_settings()})
    nodes = [cluster.add_node(wait=False, num_cpus=1, **_settings()) for _ in range(count)]
    cluster.wait_for_nodes(int(_START_SECONDS))
    print(json.dumps({"address": cluster.address, "nodes": [node.node_id[:6] for node in nodes]}), flush=True)
    for line in sys.stdin:
        cluster.remove_node(nodes[int(line)], allow_graceful=False)
        print("killed", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]))

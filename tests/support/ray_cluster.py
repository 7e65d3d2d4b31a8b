"""A Ray cluster of several nodes on this machine, in a process of its own, any of whose nodes can be killed.

``python -m tests.support.ray_cluster NODES`` prints the address and the id of each node as JSON, reads a node's number
per line and kills that node with all its processes, and ends with its standard input.
"""

from __future__ import annotations

import importlib.util
import json
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason='Ray is not installed here: pip install -e ".[ray]"'
)
_STORE = 80 << 20
_START_SECONDS = "60"
_ATTEMPTS = 6


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


def _start(cluster: Any, **settings: int | bool) -> Any:
    """Start a node, again if it fails: on a busy machine a raylet gives up before its helpers are ready."""
    for attempt in range(_ATTEMPTS):
        try:
            return cluster.add_node(wait=False, object_store_memory=_STORE, **settings)
        except Exception as error:  # noqa: BLE001  Ray raises this very class
            print(f"attempt {attempt}: {error}", file=sys.stderr)
    raise RuntimeError(f"Ray did not start a node in {_ATTEMPTS} attempts")


def main(count: int) -> None:
    """Run the cluster until standard input ends."""
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    _start(cluster, num_cpus=0, include_dashboard=False)
    nodes = [_start(cluster, num_cpus=1) for _ in range(count)]
    cluster.wait_for_nodes(int(_START_SECONDS))
    print(json.dumps({"address": cluster.address, "nodes": [node.node_id[:6] for node in nodes]}), flush=True)
    for line in sys.stdin:
        cluster.remove_node(nodes[int(line)], allow_graceful=False)
        print("killed", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]))

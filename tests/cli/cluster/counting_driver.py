"""A command that counts on a cluster, ``counting_driver.py ADDRESS FOLDER NAME=STEPS …``, and prints JSON lines."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from harness.cli.workflows.cluster.address import parse_address
from harness.cli.workflows.cluster.connection import connected
from harness.cli.workflows.cluster.dispatch import dispatch
from harness.cli.workflows.cluster.display import Board
from harness.cli.workflows.cluster.node import run_training
from harness.cli.workflows.cluster.options import Placement
from harness.cli.workflows.cluster.resources import choose_resources
from harness.cli.workflows.steps import sigterm_as_interrupt
from tests.cli.cluster.counting import counting_work


def main(address: str, root: Path, counts: list[str]) -> None:
    """Run all works, and print each outcome."""
    works = [counting_work(root, name, int(steps)) for name, _, steps in (count.partition("=") for count in counts)]
    placement = Placement(parse_address(address))
    with sigterm_as_interrupt(), connected(placement.address) as nodes:
        needed = choose_resources(placement, nodes, threads=1)
        with Board([work.name for work in works], "count") as board:
            for work, outcome in dispatch(works, run_training, needed, board):
                print(json.dumps({"name": work.name, **asdict(outcome)}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])

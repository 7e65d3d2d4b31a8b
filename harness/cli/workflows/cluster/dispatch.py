"""Give trainings to Ray, follow them, and yield how each ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.cli.workflows.cluster.display import Board
from harness.cli.workflows.cluster.node import RUNNING, NodeWork, Outcome
from harness.cli.workflows.cluster.resources import TrainingResources

_RETRIES = 5
"""How often Ray places a training again whose node or process was lost."""
_POLL_SECONDS = 0.5
_CANCEL_SECONDS = 130.0
"""How long cancelled trainings may take to save their checkpoints; a little more than a node waits for its own."""


@dataclass
class Running:
    """What the log of a training on the shared folder says of it.

    Attributes:
        starts: how often it was begun on a node.
        node: where it was begun last.
        line: the last line of its output.
    """

    path: Path
    position: int
    starts: int = 0
    node: str = ""
    line: str = ""
    _rest: bytes = b""

    def read(self) -> None:
        """Read what was appended since the last call."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self.position)
            new = file.read()
        self.position += len(new)
        *lines, self._rest = (self._rest + new).split(b"\n")
        for line in filter(None, (each.decode(errors="replace").strip() for each in lines)):
            if line.startswith(RUNNING):
                self.starts, self.node, self.line = self.starts + 1, line.removeprefix(RUNNING), ""
            else:
                self.line = line


def dispatch(
    works: Sequence[NodeWork],
    function: Callable[[Any], Outcome],
    resources: TrainingResources,
    board: Board,
) -> Iterator[tuple[NodeWork, Outcome]]:
    """Run ``function`` of each work as a Ray task, and yield each work with its outcome as they end.

    Ray starts a task again whose node or process was lost. If the iteration is left, by Ctrl-C or an error, the rest is
    cancelled and saves its checkpoints first.

    Args:
        works: with logs on a folder that this machine shares.
        function: of a module, so that nodes import it.
        board: shows the state of all.
    """
    import ray

    remote = ray.remote(max_retries=_RETRIES)(function)
    options = {"num_cpus": resources.cpus, "num_gpus": resources.gpus, "memory": resources.memory or None}
    logs = {work.name: Running(Path(work.log), _size(Path(work.log))) for work in works}
    pending = {remote.options(name=work.name, **options).remote(work): work for work in works}
    try:
        while pending:
            board.show(logs)
            done, _ = ray.wait(list(pending), timeout=_POLL_SECONDS)
            for reference in done:
                work = pending.pop(reference)
                outcome = _outcome(reference)
                board.end(work.name, outcome, logs)
                yield work, outcome
    finally:
        _cancel(list(pending))


def _outcome(reference: Any) -> Outcome:
    """Return how a task ended; a node that was lost too often is a failure too."""
    import ray

    try:
        outcome: Outcome = ray.get(reference)
    except ray.exceptions.RayError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        # The last line of a traceback from a node is the error itself; Ray's own messages begin with it.
        return Outcome(1, message=(lines[-1] if isinstance(error, ray.exceptions.RayTaskError) else lines[0])[:300])
    return outcome


def _cancel(references: list[Any]) -> None:
    """Cancel tasks, and wait until they have ended."""
    import ray

    for reference in references:
        ray.cancel(reference)
    if references:
        ray.wait(references, num_returns=len(references), timeout=_CANCEL_SECONDS)


def _size(path: Path) -> int:
    """Return the size of a file; 0 without one."""
    return path.stat().st_size if path.exists() else 0

"""The display of trainings on a cluster: counts, a line per change, and rows on a terminal."""

from __future__ import annotations

import io
import os
import pty
import sys
from contextlib import suppress
from dataclasses import dataclass

import pytest
from rich.console import Console

from harness.cli.workflows.cluster.display import Board
from harness.cli.workflows.cluster.node import Outcome


@dataclass
class State:
    """A training in a given state."""

    starts: int = 0
    node: str = ""
    line: str = ""

    def read(self) -> None:
        """Stay as it is."""


def _written_to(terminal: int) -> str:
    """Return all that was written to a terminal whose other end is closed."""
    parts = []
    with suppress(OSError):  # EIO at the end
        while part := os.read(terminal, 65536):
            parts.append(part)
    return b"".join(parts).decode()


def test_every_change_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Elsewhere than on a terminal each start, each loss of a node and each end is one line, and is printed once."""
    states = {"a": State(), "b": State(), "c": State(), "d": State()}
    with Board(list(states), "adapter") as board:
        board.show(states)
        assert board.counts(0) == "adapters: 0 done, 0 running, 0 failed, 4 waiting"
        states["a"] = State(1, "one (111111)", "step 1")
        states["b"] = State(1, "two (222222)")
        board.show(states)
        board.show(states)
        states["b"] = State(2, "one (111111)")
        board.end("a", Outcome(0, "one (111111)"), states)
        states["c"] = State(1, "one (111111)")  # begins and ends between two looks
        board.end("c", Outcome(1, "one (111111)", "out of memory"), states)
        board.end("d", Outcome(1, message="no node is left"), states)
        assert board.counts(1) == "adapters: 1 done, 1 running, 2 failed, 0 waiting"
    assert capsys.readouterr().err.splitlines() == [
        "training a on one (111111)",
        "training b on two (222222)",
        "training b on one (111111) again; the node before was lost",
        "trained a on one (111111) (1 of 4)",
        "training c on one (111111)",
        "failed c on one (111111): out of memory",
        "failed d: no node is left",
    ]


def test_a_terminal_shows_running_trainings_with_their_last_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal there are the counts and a row per running training; brackets in a line are no markup."""
    terminal, ours = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", os.fdopen(ours, "w"))
    states = {"a": State(1, "one (111111)", "loss [bold]0.5"), "b": State()}
    with Board(list(states), "adapter") as board:
        board.show(states)
        console = Console(file=io.StringIO(), width=80)
        console.print(board._table(["a"], states))
        board.end("a", Outcome(0, "one (111111)"), states)
    sys.stderr.close()
    assert isinstance(console.file, io.StringIO)
    assert [line.split() for line in console.file.getvalue().splitlines()] == [
        ["adapters:", "0", "done,", "1", "running,", "0", "failed,", "1", "waiting"],
        ["a", "one", "(111111)", "loss", "[bold]0.5"],
    ]
    assert "trained a on one (111111) (1 of 2)" in _written_to(terminal)
    os.close(terminal)

"""What a run shows: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import monotonic

import pytest

from harness.core.deadline import Deadline
from harness.core.grid import Grid
from harness.sampling.progress_display import Display, ProgressBoard
from harness.sampling.session import sample_run
from harness.voting.live_tally import ModelTally
from tests.support.commands import wait_until
from tests.support.runs.sampling_runs import QUICK_POLICY, run_options
from tests.support.servers.chat_answers import Body, mixed_answer
from tests.support.servers.chat_server import ChatServer

GRID = Grid(1, 1, b"\0")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_lines_show_the_progress_of_each_model(tmp_path: Path) -> None:
    """The server holds back the last four answers until the lines have appeared."""
    stream = io.StringIO()

    def lines(*parts: str) -> list[str]:
        return [line for line in stream.getvalue().splitlines() if all(part in line for part in parts)]

    def answer(body: Body) -> tuple[str, str]:
        if len(server.bodies) > 36:
            for model in ("base: ", "cross: "):
                wait_until(
                    lambda model=model: lines(model, "done ", "/20", "vote_2 ", "rate ", "in flight ", "left 0:0")
                )
            wait_until(lambda: lines("predictions/s", " in flight, "))
        return mixed_answer(body)

    with ChatServer(answer) as server:
        policy = replace(QUICK_POLICY, max_in_flight=2, timeout=60.0)
        sample_run(run_options(server, tmp_path / "run", models_at_once=2, policy=policy), Display(stream, 0.02))
    assert lines("truncated")


@pytest.mark.parametrize("seconds", [0.0, 59.6, 3661.0])
def test_a_status_without_servers_says_when_the_run_gives_up(seconds: float) -> None:
    board = ProgressBoard([ModelTally("base", 10, 2)])
    board.seconds_left = lambda: seconds
    times = {0.0: "0:00", 59.6: "1:00", 3661.0: "1:01:01"}
    assert board.status() == f"no server answers; giving up in {times[seconds]}"


def test_a_status_says_when_the_deadline_is_and_what_it_left_out() -> None:
    board = ProgressBoard([ModelTally("base", 10, 2, done=4), ModelTally("cross", 10, 2, done=3)], "views")
    board.in_flight = lambda model: 1
    board.deadline = Deadline(3661.4)
    assert board.status() == "0.0 views/s, 2 in flight, unknown time left, deadline in 1:01:01"
    board.seconds_left = lambda: 60.0
    assert board.status() == "no server answers; giving up in 1:00, deadline in 1:01:01"
    board.deadline = Deadline(1.0, started=monotonic() - 2)
    assert board.status() == "missing by the deadline: 13 of 20 views, 2 of them in flight"


@pytest.mark.parametrize("term", ["dumb", "unknown"])
def test_a_terminal_that_cannot_redraw_gets_plain_lines(term: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", term)
    stream = Terminal()
    board = ProgressBoard([ModelTally("base", 10, 2)])
    board.tallies["base"].answered = 3

    async def show() -> None:
        task = asyncio.create_task(Display(stream, 0.01).show(board))
        async with asyncio.timeout(60):
            while "base: done " not in stream.getvalue():
                await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(show())
    assert "\x1b" not in stream.getvalue()


def test_a_terminal_shows_one_row_per_model_and_notices_above(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    tallies = [ModelTally("base", 10, 2), ModelTally("cross", 10, 2)]
    for i in range(3):
        tallies[0].answered += 1
        tallies[0].add((f"t{i}", 0), GRID, "grid" if i else "unparsed", GRID if i else None, -0.5)
    board = ProgressBoard(tallies)
    board.in_flight = lambda model: 3 if model == "base" else 0
    display = Display(stream)

    async def wait_for(condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.01)

    async def show() -> None:
        task = asyncio.create_task(display.show(board))
        await wait_for(lambda: bool(re.search(r"base .*3/10", stream.getvalue())))
        display.notice("something [odd] happened")
        board.seconds_left = lambda: 61.0
        await wait_for(lambda: "giving up" in stream.getvalue())
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(show())
    for part in ("base", "cross", "3/10", "0/10", "vote_2", "66.7 %", "in flight", "1 unparsed", "[odd]"):
        assert part in stream.getvalue()
    assert "no server answers; giving up in 1:01" in stream.getvalue()

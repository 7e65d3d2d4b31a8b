"""What a run shows: votes as they stand, and what is left, on a terminal and in plain lines."""

from __future__ import annotations

import asyncio
import io
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.core.grid import Grid
from harness.sampling.progress_display import Display, ProgressBoard
from harness.sampling.session import sample_run
from harness.voting.live_tally import ModelTally
from harness.voting.ranking import Vote
from tests.support.chat_answers import moody
from tests.support.chat_server import ChatServer
from tests.support.sampling_toys import QUICK, options
from tests.support.votes import vote_k

GRIDS = [Grid(1, 1, bytes((c,))) for c in range(4)]
TRUTH = GRIDS[0]
DRAW = st.tuples(
    st.sampled_from([("a", 0), ("a", 1), ("b", 0)]),
    st.none() | st.sampled_from(GRIDS),
    st.sampled_from([-1.0, -0.5, -0.25]),
)


@given(draws=st.lists(DRAW, min_size=1, max_size=40), known=st.booleans())
def test_the_running_vote_equals_the_vote_over_all_predictions_so_far(
    draws: list[tuple[tuple[str, int], Grid | None, float]], known: bool
) -> None:
    tally = ModelTally("m", 100, 40)
    votes: dict[tuple[str, int], list[Vote]] = {}
    for output, grid, logprob in draws:
        tally.add(output, TRUTH, "unparsed" if grid is None else "grid", grid, logprob if known else None)
        own = votes.setdefault(output, [])
        if grid is not None:
            own.append(Vote(grid, logprob if known else None))
    tasks: dict[str, list[float]] = {}
    for (task, _), own in votes.items():
        tasks.setdefault(task, []).append(vote_k(own, TRUTH, 2))
    expected = sum(sum(v) / len(v) for v in tasks.values()) / len(tasks)
    assert tally.vote_2() == pytest.approx(expected)
    assert tally.failures == ({"unparsed": failed} if (failed := sum(grid is None for _, grid, _ in draws)) else {})


def test_a_complete_output_keeps_its_vote_but_not_its_grids() -> None:
    tally = ModelTally("m", 4, 2)
    for output in (("a", 0), ("b", 0)):
        tally.add(output, TRUTH, "grid", GRIDS[0], -0.5)
    assert len(tally.open_outputs) == 2
    tally.add(("a", 0), TRUTH, "grid", GRIDS[1], -0.5)
    assert list(tally.open_outputs) == [("b", 0)]
    assert tally.vote_2() == 1.0
    unknown = ModelTally("m", 4, 2)
    unknown.add(("a", 0), None, "grid", GRIDS[0], -0.5)
    assert unknown.vote_2() is None


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_lines_show_the_progress_of_each_model(tmp_path: Path) -> None:
    said = io.StringIO()
    with ChatServer(moody, seconds=0.05) as server:
        sample_run(options(server, tmp_path / "run", policy=replace(QUICK, max_in_flight=2)), Display(said, 0.2))
    lines = [line for line in said.getvalue().splitlines() if line.startswith("base: ")]
    assert any("done " in line and "/20" in line and "vote_2 " in line and "rate " in line for line in lines)
    assert any("in flight 2" in line and "left 0:0" in line for line in lines)
    assert any("truncated" in line for line in said.getvalue().splitlines())
    assert "predictions/s" in said.getvalue()


def test_a_terminal_shows_one_row_per_model_and_notices_above() -> None:
    said = Terminal()
    tallies = [ModelTally("base", 10, 2), ModelTally("cross", 10, 2)]
    for i in range(3):
        tallies[0].answered += 1
        tallies[0].add((f"t{i}", 0), TRUTH, "grid" if i else "unparsed", GRIDS[0] if i else None, -0.5)
    board = ProgressBoard(tallies)
    board.in_flight = lambda model: 3 if model == "base" else 0
    display = Display(said)

    async def show() -> None:
        task = asyncio.create_task(display.show(board))
        await asyncio.sleep(0.3)
        display.notice("something [odd] happened")
        board.seconds_left = lambda: 61.0
        await asyncio.sleep(0.3)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(show())
    shown = said.getvalue()
    for part in ("base", "cross", "3/10", "0/10", "vote_2", "66.7 %", "in flight", "1 unparsed", "[odd]"):
        assert part in shown
    assert "no server answers; giving up in 1:01" in shown

"""``--deadline``: a run ends with every answer saved, records what is missing, and a resume asks for exactly that."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import monotonic

import pytest

from harness.core.deadline import Deadline
from harness.core.errors import RunError
from harness.runs.folder import RunFolder
from harness.sampling import engine
from harness.sampling.options.run_options import RunOptions
from harness.scoring.run_scores import score_run
from tests.support.runs.cut_runs import answer_again, hang_after, predictions_by_output, sample_until
from tests.support.runs.enumerated_runs import dfs_options, enumerating_server, stable_lines
from tests.support.runs.sampling_runs import (
    QUICK_POLICY,
    ambiguous_answer,
    predictions_without_times,
    run_options,
    run_sampling,
    stopping_options,
)
from tests.support.servers.chat_answers import mixed_answer
from tests.support.servers.chat_server import ChatServer

FEW = replace(QUICK_POLICY, max_in_flight=4, timeout=60.0)
"""Four predictions in flight, and no timeout while the server hangs."""


@pytest.fixture
def short_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests in flight are abandoned soon after the deadline."""
    monkeypatch.setattr(engine, "DEADLINE_DRAIN_SECONDS", 0.2)


@pytest.mark.parametrize(
    ("serve", "options", "answers", "lines"),
    [
        (partial(ChatServer, mixed_answer), run_options, 16, predictions_without_times),
        (partial(ChatServer, mixed_answer, tokens=True), run_options, 16, predictions_without_times),
        (
            partial(ChatServer, ambiguous_answer),
            partial(stopping_options, stop="decided"),
            60,
            predictions_without_times,
        ),
        (partial(enumerating_server, doubt=0.4), dfs_options, 60, stable_lines),
    ],
    ids=["chats", "token ids", "early stopping", "views"],
)
@pytest.mark.usefixtures("short_drain")
def test_a_cut_run_is_completed_to_the_run_without_a_deadline(
    tmp_path: Path,
    serve: Callable[[], AbstractContextManager[ChatServer]],
    options: Callable[..., RunOptions],
    answers: int,
    lines: Callable[[Path], list[object]],
) -> None:
    folder = RunFolder(tmp_path / "run")
    with serve() as server:
        chosen = options(server, folder.path, policy=FEW)
        hang_after(server, answers)
        cut = sample_until(chosen, 3)
        assert cut.is_cut
        assert 0 < cut.done < cut.total
        manifest = folder.manifest()
        assert manifest.finished is None
        assert manifest.cut_by is not None
        assert sum(manifest.cut_by.missing.values()) == cut.total - cut.done
        assert sum(manifest.cut_by.requested.values()) == cut.total
        saved = folder.predictions_path.read_bytes()
        scored = {name: result.deadline for name, result in score_run(folder.path).models.items()}
        assert {name: part.missing for name, part in scored.items() if part is not None} == manifest.cut_by.missing
        answer_again(server)
        finished = run_sampling(replace(chosen, resume=True))
        assert (finished.is_cut, finished.done, finished.sampled) == (False, finished.total, finished.total - cut.done)
        assert folder.predictions_path.read_bytes().startswith(saved)
        assert folder.manifest().deadline is None
        assert folder.manifest().finished is not None
        run_sampling(replace(chosen, out=tmp_path / "whole"))
    assert lines(folder.path) == lines(tmp_path / "whole")
    assert score_run(folder.path).models == score_run(tmp_path / "whole").models


@pytest.mark.usefixtures("short_drain")
def test_every_test_output_has_predictions_at_the_deadline(tmp_path: Path) -> None:
    """Without a deadline one model's first outputs would have all of theirs, and the other model none."""
    with ChatServer(mixed_answer) as server:
        hang_after(server, 24)
        assert sample_until(run_options(server, tmp_path / "run", policy=FEW), 6).done == 24
    counts = predictions_by_output(tmp_path / "run")
    assert len(counts) == 10
    assert set(counts.values()) == {2, 3}


def test_a_run_ends_within_seconds_of_its_deadline(tmp_path: Path) -> None:
    shown = io.StringIO()
    with ChatServer(mixed_answer) as server:
        hang_after(server, 10)
        start = monotonic()
        summary = sample_until(run_options(server, tmp_path / "run", policy=FEW), 5, shown)
        assert monotonic() - start >= 5 + engine.DEADLINE_DRAIN_SECONDS
        assert summary.sampling_seconds < 5 + engine.DEADLINE_DRAIN_SECONDS + 5
    assert "the deadline has passed: 4 answers in flight get 5 s" in shown.getvalue()
    assert summary.done == 10


def test_answers_in_flight_are_saved_after_the_deadline(tmp_path: Path) -> None:
    with ChatServer(mixed_answer, seconds=4.0) as server:
        summary = sample_until(run_options(server, tmp_path / "run", policy=FEW), 2)
    assert summary.is_cut
    assert summary.done == 4
    assert len(server.bodies) == 4


def test_a_run_that_is_complete_before_its_deadline_is_not_cut(tmp_path: Path) -> None:
    with ChatServer(mixed_answer) as server:
        summary = sample_until(run_options(server, tmp_path / "run"), 3600)
    assert (summary.is_cut, summary.finished) == (False, True)
    manifest = RunFolder(tmp_path / "run").manifest()
    assert manifest.deadline is not None
    assert (manifest.deadline.seconds, manifest.deadline.passed, manifest.cut_by) == (3600, None, None)


def test_a_deadline_before_the_servers_are_ready_creates_no_run(tmp_path: Path) -> None:
    with ChatServer(mixed_answer) as server:
        options = run_options(server, tmp_path / "run", deadline=Deadline(0.001))
        with pytest.raises(RunError, match=r"--deadline 0\.001s passed before the servers were ready: nothing was ask"):
            run_sampling(options)
    assert not (tmp_path / "run").exists()


def test_nothing_is_asked_after_the_deadline(tmp_path: Path) -> None:
    with ChatServer(mixed_answer) as server:
        summary = sample_until(run_options(server, tmp_path / "run"), -1)
        assert (summary.is_cut, summary.done, server.bodies) == (True, 0, [])


def test_a_lost_server_is_not_waited_for_after_the_deadline(tmp_path: Path) -> None:
    with ChatServer(mixed_answer) as server:
        hang_after(server, 10)
        policy = replace(FEW, timeout=1.0, wait=600.0)
        summary = sample_until(run_options(server, tmp_path / "run", policy=policy), 6)
    assert summary.is_cut
    assert summary.done == 10
    assert summary.sampling_seconds < 60

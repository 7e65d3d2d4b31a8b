"""A run that is reproduced from its manifest: equal on the same server, else the differences are reported."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from harness.core.errors import RunError
from harness.runs.folder import RunFolder
from harness.sampling.progress_display import Display
from harness.sampling.reproduction import reproduce_run
from harness.scoring.run_scores import score_run
from tests.support.commands import run_bench
from tests.support.runs.sampling_runs import run_options, run_sampling
from tests.support.servers.chat_answers import Body, echo, mixed_answer
from tests.support.servers.chat_server import ChatServer


def test_the_same_server_gives_the_same_run(tmp_path: Path) -> None:
    with ChatServer(mixed_answer) as server:
        run_sampling(run_options(server, tmp_path / "run", encoder="RepeatNumberEncoder(2)", limit=3, seed=5))
        score_run(tmp_path / "run")
        summary, agreement = reproduce_run(tmp_path / "run", tmp_path / "again", display=Display(io.StringIO()))
    assert summary.total == 24
    assert agreement is not None
    assert (agreement.predictions, agreement.same, agreement.same_results, agreement.first) == (24, 24, True, ())
    assert RunFolder(tmp_path / "again").manifest().config == RunFolder(tmp_path / "run").manifest().config


@pytest.mark.parametrize("words", [None, ("--resamples", "200"), ("--confidence", "0.9"), ("--rules", "all")])
def test_options_of_scoring_make_no_difference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...] | None
) -> None:
    with ChatServer(mixed_answer) as server:
        run_sampling(run_options(server, tmp_path / "run"))
        if words is not None:
            assert run_bench(capsys, "score", tmp_path / "run", *words)[0] == 0
        _, agreement = reproduce_run(tmp_path / "run", tmp_path / "again", display=Display(io.StringIO()))
    assert agreement is not None
    assert agreement.same == agreement.predictions
    assert agreement.same_results


def test_a_different_answer_is_reported(tmp_path: Path) -> None:
    def changed(body: Body) -> str:
        return "1" if body["model"] == "cross" and len(server.bodies) % 5 == 0 else echo(body)

    with ChatServer() as server:
        run_sampling(run_options(server, tmp_path / "run"))
        score_run(tmp_path / "run")
        server.answer = changed
        _, agreement = reproduce_run(tmp_path / "run", tmp_path / "again", display=Display(io.StringIO()))
    assert agreement is not None
    assert not agreement.same_results
    assert agreement.same < agreement.predictions == 40
    assert {key[0] for key in agreement.first} == {"cross"}


def test_a_changed_model_is_named(tmp_path: Path) -> None:
    with ChatServer() as server:
        run_sampling(run_options(server, tmp_path / "run"))
        server.models = {"base": {}, "cross": {"arc_bench": {"hash": "newer"}}}
        with pytest.raises(RunError, match=r"cannot be repeated: cross's hash: null -> .newer."):
            reproduce_run(tmp_path / "run", tmp_path / "again", display=Display(io.StringIO()))
    assert not (tmp_path / "again").exists()

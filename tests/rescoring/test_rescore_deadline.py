"""``bench rescore --deadline``: what is not rescored is recorded, the rules say it, and a repeated command adds it."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import pytest

from harness.candidates.rescores import RESCORES_FILE, Rescores, read_rescores
from harness.core.deadline import Deadline
from harness.core.errors import RunError
from harness.predictions.rescore_source import open_rescore_source
from harness.rescoring.options import RescoreSummary
from harness.sampling import engine
from harness.scoring.prediction_loader import SavedPredictions, open_predictions
from harness.voting.selection_rules import RULES, VOTE
from tests.support.commands import run_bench
from tests.support.runs.cut_runs import answer_again, hang_after
from tests.support.runs.enumerated_runs import enumerating_server
from tests.support.runs.pools import make_pool
from tests.support.runs.rescored_runs import VIEWS, rescore_options, run_rescore, saved_logprobs
from tests.support.runs.sampling_runs import QUICK_POLICY
from tests.support.servers.chat_server import ChatServer

Capture = pytest.CaptureFixture[str]
FEW = replace(QUICK_POLICY, max_in_flight=16, timeout=60.0)


def rescore_until(server: ChatServer, run: Path, requests: int, **options: object) -> RescoreSummary:
    """Rescore with a deadline before which the server answers about so many requests."""
    hang_after(server, requests)
    try:
        return run_rescore(rescore_options(server, run, policy=FEW, deadline=Deadline(8.0), **options))
    finally:
        answer_again(server)


@pytest.fixture(scope="module")
def cut(sampled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The enumerated run of two models, whose rescoring a deadline cut in the middle."""
    run = copytree(sampled, tmp_path_factory.mktemp("cut") / "run")
    drain = engine.DEADLINE_DRAIN_SECONDS
    engine.DEADLINE_DRAIN_SECONDS = 0.2
    try:
        with enumerating_server(doubt=0.4, scores=True) as server:
            summary = rescore_until(server, run, 30)
    finally:
        engine.DEADLINE_DRAIN_SECONDS = drain
    assert summary.is_cut
    assert not summary.interrupted
    assert 0 < summary.done < summary.total
    return run


@pytest.fixture
def run_of_cut(cut: Path, tmp_path: Path) -> Path:
    return copytree(cut, tmp_path / "cut")


def rescores_of(run: Path) -> Rescores:
    rescores = read_rescores(run / RESCORES_FILE)
    assert rescores is not None
    return rescores


def complete_outputs(run: Path, model: str) -> dict[tuple[str, int], bool]:
    """Return for each test output with candidates whether all of them have a log-probability under every view."""
    rescores, candidates = rescores_of(run), open_rescore_source(run).candidates[model]
    return {
        output: all(rescores.has((model, *output, grid, view)) for grid in grids for view in range(VIEWS))
        for output, grids in candidates.items()
        if grids
    }


def test_what_is_missing_is_in_the_header(cut: Path) -> None:
    rescores = rescores_of(cut)
    assert rescores.header.deadline is not None
    candidates = open_rescore_source(cut).candidates
    for model, outputs in candidates.items():
        total = VIEWS * sum(map(len, outputs.values()))
        record = rescores.header.deadline[model]
        assert (record.seconds, record.total) == (8.0, total)
        assert record.missing == total - rescores.scorers[model].lines


def test_a_deadline_leaves_whole_outputs_of_every_scorer(cut: Path) -> None:
    """Only the requests in flight were of outputs that have some of their log-probabilities."""
    for model in ("base", "cross"):
        complete = list(complete_outputs(cut, model).values())
        assert any(complete)
        assert not all(complete)
        assert sum(complete) - complete.index(False) <= 1


def rankings(saved: SavedPredictions, rule: str) -> dict[tuple[str, str, int], list[object]]:
    """Return the ranked grids of every model and test output."""
    return {
        (model.model, task, index): [
            entry.grid for entry in saved.rescores[model.model].rank(RULES[rule], task, index, output.votes())
        ]
        for model in saved.predictions
        for task, outputs in model.outputs.items()
        for index, output in enumerate(outputs)
    }


@pytest.mark.parametrize("rule", ["poe", "kgmon"])
def test_rules_rank_by_the_vote_what_the_deadline_left_out(run_of_cut: Path, server: ChatServer, rule: str) -> None:
    run = run_of_cut
    saved = open_predictions(run)
    by_rule, by_vote = rankings(saved, rule), rankings(saved, VOTE)
    complete = {model: complete_outputs(run, model) for model in ("base", "cross")}
    run_rescore(rescore_options(server, run))
    whole = rankings(open_predictions(run), rule)
    for model, task, index in by_rule:
        is_complete = complete[model].get((task, index), True)
        assert by_rule[model, task, index] == (whole if is_complete else by_vote)[model, task, index]
    assert whole != by_rule


def test_commands_say_what_is_missing(capsys: Capture, run_of_cut: Path, tmp_path: Path) -> None:
    run = run_of_cut
    header = rescores_of(run).header.deadline
    assert header is not None
    for words in (["score", run, "--rules", "all"], ["submit", f"{run}@base", "--rule", "kgmon", "-o", tmp_path / "s"]):
        status, _, err = run_bench(capsys, *words)
        assert status == 0, err
        assert "left out" not in err
        outputs = complete_outputs(run, "base").values()
        text = (
            f"missing by the deadline (8s): {header['base'].missing:,} of {header['base'].total:,} log-probabilities "
        )
        text += f"by base: poe and kgmon rank {len(outputs) - sum(outputs)} of 5 test outputs of base by the vote"
        assert text in err
    assert run_bench(capsys, "submit", "--check", tmp_path / "s", "--dataset", "toy/copy/evaluation#n=5")[0] == 0
    status, _, err = run_bench(capsys, "report", run, "-o", tmp_path / "report.md")
    assert status == 0, err
    assert "log-probabilities by base: poe and kgmon rank" in (tmp_path / "report.md").read_text()


def test_the_same_command_completes_what_a_deadline_left(run_of_cut: Path, sampled: Path, server: ChatServer) -> None:
    before = (run_of_cut / RESCORES_FILE).read_bytes().splitlines()[1:]
    again = run_rescore(rescore_options(server, run_of_cut))
    assert again.scored == again.total - len(before)
    after = (run_of_cut / RESCORES_FILE).read_bytes().splitlines()
    assert after[1 : len(before) + 1] == before
    assert rescores_of(run_of_cut).header.deadline is None
    other = copytree(sampled, run_of_cut.with_name("whole"))
    run_rescore(rescore_options(server, other))
    assert saved_logprobs(run_of_cut) == saved_logprobs(other)
    assert sorted(after) == sorted((other / RESCORES_FILE).read_bytes().splitlines())


def test_another_scorer_keeps_what_a_deadline_left_of_the_first(run_of_cut: Path, server: ChatServer) -> None:
    before = rescores_of(run_of_cut).header.deadline
    run_rescore(rescore_options(server, run_of_cut, model="cross"))
    after = rescores_of(run_of_cut).header.deadline
    assert before is not None
    assert after == {"base": before["base"]}


@pytest.mark.usefixtures("short_drain")
def test_a_pool_can_be_cut_too(capsys: Capture, run: Path, server: ChatServer, tmp_path: Path) -> None:
    pool = make_pool(tmp_path / "pool", f"{run}@base", f"{run}@cross")
    summary = rescore_until(server, pool, 20, model="cross")
    assert summary.is_cut
    file = tmp_path / "submission.json"
    status, _, err = run_bench(capsys, "submit", pool, "--rule", "poe", "-o", file)
    assert status == 0, err
    assert "log-probabilities by cross: poe and kgmon rank" in err
    assert run_bench(capsys, "submit", "--check", file, "--dataset", "toy/copy/evaluation#n=5")[0] == 0


@pytest.fixture
def short_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests in flight are abandoned soon after the deadline."""
    monkeypatch.setattr(engine, "DEADLINE_DRAIN_SECONDS", 0.2)


@pytest.mark.usefixtures("short_drain")
def test_the_command_says_it_and_succeeds(capsys: Capture, run: Path, server: ChatServer) -> None:
    words = ["rescore", run, "--server", server.url, "--views", VIEWS, "--max-in-flight", 16]
    hang_after(server, 20)
    status, out, err = run_bench(capsys, *words, "--deadline", "8s")
    assert status == 0, err
    total = VIEWS * sum(
        len(grids) for model in open_rescore_source(run).candidates.values() for grids in model.values()
    )
    count = sum(scorer.lines for scorer in rescores_of(run).scorers.values())
    assert f"{count} of {total} are in " in out
    assert f"missing by the deadline: {total - count} of {total} log-probabilities; the same command asks for" in err
    answer_again(server)
    status, _, err = run_bench(capsys, *words)
    assert status == 0
    assert "missing by the deadline" not in err


def test_a_deadline_before_the_servers_are_ready(run: Path, server: ChatServer) -> None:
    with pytest.raises(RunError, match="passed before the servers were ready"):
        run_rescore(rescore_options(server, run, deadline=Deadline(0.001)), io.StringIO())
    assert not (run / RESCORES_FILE).exists()

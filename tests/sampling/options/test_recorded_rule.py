"""``bench run --rule``: recorded before the first prediction, kept when resuming and reproducing, or refused."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from harness.runs.folder import RunFolder
from harness.sampling.progress_display import Display
from harness.sampling.reproduction import reproduce_run
from tests.support.commands import run_bench
from tests.support.runs.enumerated_runs import enumerating_server
from tests.support.runs.rescores import write_rescores
from tests.support.runs.sampling_runs import run_options, run_sampling
from tests.support.servers.chat_answers import Body, mixed_answer
from tests.support.servers.chat_server import ChatServer

Capture = pytest.CaptureFixture[str]
UNREACHABLE = "http://127.0.0.1:9"


def words(url: str, out: Path, *more: str) -> list[object]:
    """Return a ``bench run`` command for one model and three tasks."""
    return [
        "run", "--server", url, "--model", "base", "--dataset", "toy/copy/evaluation#n=3", "-n", "2", "--out", out,
        "--prompt", "compact-v0", "--grid-encoder", "MinimalGridEncoder()", "--max-tokens", "60", *more,
    ]  # fmt: skip


def test_the_rule_is_in_the_manifest_before_the_first_request(tmp_path: Path, capsys: Capture) -> None:
    recorded: list[str | None] = []

    def answer(body: Body) -> str:
        recorded.append(json.loads((tmp_path / "run" / "manifest.json").read_text())["config"].get("rule"))
        return mixed_answer(body)

    with ChatServer(answer) as server:
        status, out, _ = run_bench(capsys, *words(server.url, tmp_path / "run", "--rule", "first"))
    assert status == 0
    assert set(recorded) == {"first"}
    assert "vote_1 and vote_2 are by the rule first (chosen before sampling: it is in the run's manifest)." in out


def test_without_the_option_the_manifest_has_no_such_field(tmp_path: Path, capsys: Capture) -> None:
    with ChatServer(mixed_answer) as server:
        assert run_bench(capsys, *words(server.url, tmp_path / "run"))[0] == 0
    assert "rule" not in json.loads((tmp_path / "run" / "manifest.json").read_text())["config"]


def test_a_rule_on_rescores_leaves_scoring_for_later(tmp_path: Path, capsys: Capture) -> None:
    run = tmp_path / "run"
    with enumerating_server() as server:
        command = words(server.url, run, "--search", "dfs", "--rule", "kgmon")
        status, out, err = run_bench(capsys, *command)
        assert (status, out) == (0, "")
        assert f"not scored: {run}, base: rule kgmon cannot be applied: the candidates were not rescored (" in err
        assert "bench rescore RUN --server URL" in err
        assert f"then bench score {run}" in err
        assert not (run / "results.json").exists()
        write_rescores(run)
        status, out, _ = run_bench(capsys, "score", run)
        assert (status, "by the rule kgmon (chosen before sampling" in out) == (0, True)
        _, agreement = reproduce_run(run, tmp_path / "again", display=Display(io.StringIO()))
    assert agreement is not None
    assert (agreement.same, agreement.same_results) == (agreement.predictions, True)
    assert RunFolder(tmp_path / "again").manifest().config.rule == "kgmon"
    assert not (tmp_path / "again" / "results.json").exists()


def test_resuming_keeps_the_rule_and_refuses_another(tmp_path: Path, capsys: Capture) -> None:
    with ChatServer(mixed_answer) as server:
        for name, rule in (("with", "first"), ("without", None)):
            run_sampling(run_options(server, tmp_path / name, rule=rule))
        run_sampling(run_options(server, tmp_path / "with", resume=True))
        assert RunFolder(tmp_path / "with").manifest().config.rule == "first"
        for name, change in (("with", '"first" -> "vote"'), ("without", 'null -> "vote"')):
            command = words(server.url, tmp_path / name, "--model", "cross", "--resume", "--rule", "vote")
            command[command.index("toy/copy/evaluation#n=3")] = "toy/copy/evaluation#n=5"
            status, _, err = run_bench(capsys, *command)
            assert status == 1
            assert f"rule: {change}" in err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--rule", "median"), "there is no selection rule 'median'; choose one of vote, "),
        (("--rule", "poe", "--stop", "decided"), "--stop ends where the vote is decided"),
    ],
)
def test_rules_that_cannot_be_are_refused_before_anything_is_written(
    tmp_path: Path, capsys: Capture, more: tuple[str, ...], message: str
) -> None:
    status, out, err = run_bench(capsys, *words(UNREACHABLE, tmp_path / "run", *more))
    assert (status, out) == (2, "")
    assert message in err
    assert not (tmp_path / "run").exists()

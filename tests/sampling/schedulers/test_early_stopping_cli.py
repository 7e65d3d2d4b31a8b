"""Runs with early stopping in each command: bench run, score, compare, gate, report and submit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.cli import cli
from harness.cli.entry import run_cli
from tests.support.commands import run_bench
from tests.support.runs.sampling_runs import ambiguous_answer
from tests.support.servers.chat_server import ChatServer


def run_words(server: ChatServer, out: Path, *more: str) -> list[str]:
    return [
        "run", "--server", server.url, "--model", "base", "--dataset", "toy/copy/evaluation#n=24", "-n", "16",
        "--prompt", "compact-v0", "--grid-encoder", "MinimalGridEncoder()", "--out", str(out), *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stopping")
    with ChatServer(ambiguous_answer) as server:
        assert run_cli(cli, run_words(server, folder / "full")) == 0
        assert run_cli(cli, run_words(server, folder / "early", "--stop", "decided")) == 0
    return folder


def test_the_summary_says_what_was_skipped_and_what_is_unknown(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with ChatServer(ambiguous_answer) as server:
        status, out, _ = run_bench(capsys, *run_words(server, tmp_path / "run", "--stop", "risk=0.1"))
        spared = 24 * 16 - len(server.bodies)
    assert status == 0
    assert spared > 0
    assert f"base stopped early (risk=0.1): {spared} of 384 predictions (" in out
    assert "means over predictions are of the first 8 of each; pass_n is not available, as an exact grid may be" in out
    header, _, row = (line.split("|") for line in out.splitlines()[:3])
    assert row[[cell.strip() for cell in header].index("pass_n")].strip() == "–"
    saved = json.loads((tmp_path / "run" / "results.json").read_text())["models"]["base"]
    assert saved["stopping"]["not_drawn"] == spared
    assert "pass_n" not in saved["metrics"]
    assert "NaN" not in (tmp_path / "run" / "results.json").read_text()


def test_an_invalid_rule_is_wrong_use(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with ChatServer(ambiguous_answer) as server:
        status, _, err = run_bench(capsys, *run_words(server, tmp_path / "run", "--stop", "risk=2"))
        assert not server.bodies
    assert status == 2
    assert "--stop 'risk=2' is neither 'decided' nor a risk between 0 and 1" in err
    assert not (tmp_path / "run").exists()


def test_scoring_again_gives_the_same(capsys: pytest.CaptureFixture[str], runs: Path) -> None:
    before = json.loads((runs / "early" / "results.json").read_text())
    status, out, _ = run_bench(capsys, "score", runs / "early")
    assert status == 0
    assert "base stopped early (decided)" in out
    assert "what sampling would have found is not known" in out
    assert json.loads((runs / "early" / "results.json").read_text())["models"] == before["models"]
    status, _, err = run_bench(capsys, "score", runs / "early", "--rules", "all")
    assert status == 2
    assert "leave out --rules" in err


def test_a_comparison_leaves_out_metrics_that_one_run_cannot_give(
    capsys: pytest.CaptureFixture[str], runs: Path
) -> None:
    status, out, err = run_bench(capsys, "compare", runs / "full", runs / "early", "--json", "-")
    assert status == 0
    rows = {row["metric"]: row["comparison"] for row in json.loads(out)}
    assert "pass_n" not in rows
    assert all(rows[metric][side] == 0 for metric in ("vote_1", "vote_2") for side in ("won", "lost"))
    assert "the runs differ in their stopping rules (decided, none)" in err
    assert "pass_n is not available, as an exact grid may be among the predictions that were not drawn" in err


def test_a_gate_on_an_unknown_metric_is_refused(capsys: pytest.CaptureFixture[str], runs: Path) -> None:
    status, out, _ = run_bench(capsys, "gate", runs / "early", "--metric", "vote_2", "--min", "0.1")
    assert (status, out.split(":")[0]) == (0, "PASS")
    for words in (("--min", "0.1"), ("--baseline", runs / "full", "--margin", "0.1")):
        status, _, err = run_bench(capsys, "gate", runs / "early", "--metric", "pass_n", *words)
        assert status == 2
        assert "stopped early (decided), so that pass_n is unknown" in err


@pytest.mark.slow
def test_a_report_shows_full_and_stopped_runs_side_by_side(
    capsys: pytest.CaptureFixture[str], runs: Path, tmp_path: Path
) -> None:
    status, _, err = run_bench(capsys, "report", runs / "full", runs / "early", "-o", tmp_path / "report.md")
    assert status == 0, err
    text = (tmp_path / "report.md").read_text()
    assert "early@base stopped early (decided)" in text
    assert "--stop decided" in text
    assert "nan" not in text.lower().split()


def test_a_submission_has_the_attempts_of_the_full_run(
    capsys: pytest.CaptureFixture[str], runs: Path, tmp_path: Path
) -> None:
    for name in ("full", "early"):
        status, _, err = run_bench(capsys, "submit", runs / name, "-o", tmp_path / f"{name}.json")
        assert status == 0, err
    assert (tmp_path / "early.json").read_bytes() == (tmp_path / "full.json").read_bytes()


def test_a_submission_by_another_rule_is_refused(
    capsys: pytest.CaptureFixture[str], runs: Path, tmp_path: Path
) -> None:
    status, _, err = run_bench(capsys, "submit", runs / "early", "-o", tmp_path / "s.json", "--rule", "first")
    assert (status, (tmp_path / "s.json").exists()) == (2, False)
    assert "another rule could have chosen among the predictions that were not drawn: leave out --rule" in err
    assert run_bench(capsys, "submit", runs / "full", "-o", tmp_path / "s.json", "--rule", "first")[0] == 0

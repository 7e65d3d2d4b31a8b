"""``bench run`` and ``bench reproduce`` as commands: the resume command, retry options, invalid input, files, keys."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.cli import cli
from harness.cli.entry import run_cli
from harness.runs.folder import RunFolder
from tests.support.data_samples import barc_lines, write_lines
from tests.support.servers.chat_answers import Body
from tests.support.servers.chat_server import ChatServer


def run_arguments(server: ChatServer, out: Path, *more: str) -> list[str]:
    return [
        "run", "--server", server.url, "--model", "base", "--dataset", "toy/copy/evaluation#n=4", "-n", "2",
        "--prompt", "compact-v0", "--grid-encoder", "MinimalGridEncoder()", "--out", str(out), *more,
    ]  # fmt: skip


def test_the_resume_command_is_printed_only_if_resuming_can_help(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    with ChatServer() as server:
        assert run_cli(cli, run_arguments(server, out, "--limit", "2")) == 0
        assert run_cli(cli, run_arguments(server, out, "--resume")) == 1
    refused = capsys.readouterr().err
    assert "error: " in refused
    assert "to resume" not in refused
    with ChatServer(refuse=lambda body: None if body.get("max_tokens") == 1 else (401, {"error": "no"})) as server:
        assert run_cli(cli, run_arguments(server, tmp_path / "other")) == 1
    assert "to resume: bench " in capsys.readouterr().err


def test_reproduce_has_the_retry_options_of_run(tmp_path: Path) -> None:
    def busy(body: Body) -> tuple[int, Body] | None:
        return None if body.get("max_tokens") == 1 else (500, {"error": "busy"})

    with ChatServer() as server:
        assert run_cli(cli, run_arguments(server, tmp_path / "run")) == 0
        server.refuse = busy
        asked = len(server.bodies)
        again = ["reproduce", str(tmp_path / "run"), "--out", str(tmp_path / "again"), "--retries", "0"]
        assert run_cli(cli, again) == 1
        assert 8 <= len(server.bodies) - asked <= 8 + 3


@pytest.mark.parametrize("name", ["input-from-inputs-v0", "output-from-outputs-v0"])
def test_a_prompt_without_the_test_input_is_refused_before_sampling(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    with ChatServer() as server:
        typed = run_arguments(server, tmp_path / "run")
        typed[typed.index("compact-v0")] = name
        assert run_cli(cli, typed) == 2
    err = capsys.readouterr().err
    assert f"prompt {name} never shows the test input" in err
    assert "choose one with --prompt: compact-v0, output-from-examples-nosystem-v0" in err
    assert not (tmp_path / "run").exists()


def test_a_run_without_known_outputs_is_finished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    challenges = tmp_path / "arc_test_challenges.json"
    assert run_cli(cli, ["data", "export", "toy/copy/evaluation#n=4", "-o", str(challenges)]) == 0
    solutions = tmp_path / "arc_test_solutions.json"
    solutions.rename(tmp_path / "kept.json")
    out = tmp_path / "run"
    with ChatServer() as server:
        assert run_cli(cli, run_arguments(server, out, "--dataset", str(challenges))) == 0
    assert "not scored: of 4 tasks 4 (copy-000000, " in capsys.readouterr().err
    assert run_cli(cli, ["submit", str(out), "-o", str(tmp_path / "s.json")]) == 0
    assert run_cli(cli, ["score", str(out)]) == 1
    (tmp_path / "kept.json").rename(solutions)
    assert run_cli(cli, ["score", str(out)]) == 0


def test_a_run_skips_a_bad_row_of_barc(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ARC_BENCH_CACHE", str(tmp_path / "cache"))
    lines = barc_lines(4)
    lines[1] = '{"examples": [[[[1]], [[2]]], [[[11]], [[1]]]]}'
    rows = write_lines(tmp_path / "rows.jsonl", lines)
    out = tmp_path / "run"
    with ChatServer() as server:
        assert run_cli(cli, run_arguments(server, out, "--dataset", str(rows), "--limit", "3")) == 0
    assert RunFolder(out).manifest().config.task_ids == ["rows-1", "rows-3", "rows-4"]
    assert run_cli(cli, ["score", str(out)]) == 0
    assert "line 2" in caplog.text


@pytest.mark.parametrize("seed", ["-1", str(2**63), str(2**70)])
def test_a_seed_that_no_file_can_hold_is_refused_before_sampling(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], seed: str
) -> None:
    with ChatServer() as server:
        assert run_cli(cli, run_arguments(server, tmp_path / "run", "--seed", seed)) == 2
        assert server.bodies == []
    assert "--seed" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_largest_seed_is_scored(tmp_path: Path) -> None:
    with ChatServer() as server:
        assert run_cli(cli, run_arguments(server, tmp_path / "run", "--seed", str(2**63 - 1))) == 0
    assert run_cli(cli, ["gate", f"{tmp_path / 'run'}@base", "--min", "0"]) == 0


def test_resume_without_a_run_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ChatServer() as server:
        assert run_cli(cli, run_arguments(server, tmp_path / "mistyped", "--resume")) == 1
        assert server.bodies == []
    assert "there is no run to resume" in capsys.readouterr().err
    assert not (tmp_path / "mistyped").exists()


def test_the_files_of_a_run_respect_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        with ChatServer() as server:
            assert run_cli(cli, run_arguments(server, tmp_path / "run")) == 0
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "run").iterdir()}
    assert {"manifest.json", "predictions.jsonl", "results.json"} <= modes.keys()
    assert set(modes.values()) == {0o600}


def test_a_key_is_read_from_the_file_that_a_variable_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``bench serve`` reads it; a key that is given otherwise comes first."""
    (tmp_path / "user.key").write_text("0123456789\n")
    monkeypatch.setenv("ARC_BENCH_API_KEY_FILE", str(tmp_path / "user.key"))
    with ChatServer(key="0123456789") as server:
        assert run_cli(cli, run_arguments(server, tmp_path / "run")) == 0
        again = ["reproduce", str(tmp_path / "run"), "--out", str(tmp_path / "again")]
        assert run_cli(cli, again) == 2
        assert f"--server {server.url}" in capsys.readouterr().err
        assert run_cli(cli, [*run_arguments(server, tmp_path / "other"), "--api-key", "wrong-key"]) == 1
        monkeypatch.setenv("ARC_BENCH_API_KEY_FILE", str(tmp_path / "absent.key"))
        assert run_cli(cli, run_arguments(server, tmp_path / "third")) == 2
        assert "ARC_BENCH_API_KEY_FILE" in capsys.readouterr().err
        monkeypatch.setenv("ARC_BENCH_API_KEY", "0123456789")
        assert run_cli(cli, run_arguments(server, tmp_path / "third")) == 2
        assert "ARC_BENCH_API_KEY and ARC_BENCH_API_KEY_FILE are both set" in capsys.readouterr().err
    assert not any(b"0123456789" in path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file())


def test_a_key_is_not_sent_to_an_address_from_the_run_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    again = ["reproduce", str(tmp_path / "run"), "--out", str(tmp_path / "again")]
    with ChatServer() as server:
        assert run_cli(cli, run_arguments(server, tmp_path / "run")) == 0
        monkeypatch.setenv("ARC_BENCH_API_KEY", "secret")
        asked = len(server.bodies)
        assert run_cli(cli, again) == 2
        assert len(server.bodies) == asked
        err = capsys.readouterr().err
        assert f"--server {server.url}" in err
        assert "secret" not in err
        assert run_cli(cli, [*again, "--server", server.url]) == 0

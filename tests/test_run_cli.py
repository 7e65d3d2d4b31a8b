"""``bench run`` and ``bench reproduce`` as typed: when going on is offered, and how hard a run made again asks."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli import cli
from harness.console import run_cli
from tests.chat_answers import Body
from tests.chat_server import ChatServer


def words(server: ChatServer, out: Path, *more: str) -> list[str]:
    return [
        "run", "--server", server.url, "--model", "base", "--dataset", "toy/copy/evaluation#n=4", "-n", "2",
        "--prompt", "compact-v0", "--grid-encoder", "MinimalGridEncoder()", "--out", str(out), *more,
    ]  # fmt: skip


def test_going_on_is_offered_only_where_it_helps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    with ChatServer() as server:
        assert run_cli(cli, words(server, out, "--limit", "2")) == 0
        assert run_cli(cli, words(server, out, "--resume")) == 1
    refused = capsys.readouterr().err
    assert "error: " in refused
    assert "to go on" not in refused
    with ChatServer(refuse=lambda body: None if body.get("max_tokens") == 1 else (401, {"error": "no"})) as server:
        assert run_cli(cli, words(server, tmp_path / "other")) == 1
    assert "to go on: bench " in capsys.readouterr().err


def test_a_run_made_again_asks_as_hard_as_it_is_told(tmp_path: Path) -> None:
    def busy(body: Body) -> tuple[int, Body] | None:
        return None if body.get("max_tokens") == 1 else (500, {"error": "busy"})

    with ChatServer() as server:
        assert run_cli(cli, words(server, tmp_path / "run")) == 0
        server.refuse = busy
        asked = len(server.bodies)
        again = ["reproduce", str(tmp_path / "run"), "--out", str(tmp_path / "again"), "--retries", "0"]
        assert run_cli(cli, again) == 1
        assert 8 <= len(server.bodies) - asked <= 8 + 3


@pytest.mark.parametrize("name", ["input-from-inputs-v0", "output-from-outputs-v0"])
def test_a_prompt_without_the_test_input_is_refused_before_anything_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    with ChatServer() as server:
        typed = words(server, tmp_path / "run")
        typed[typed.index("compact-v0")] = name
        assert run_cli(cli, typed) == 2
    err = capsys.readouterr().err
    assert f"prompt {name} never shows the test input" in err
    assert "choose one with --prompt: compact-v0, output-from-examples-v0" in err
    assert not (tmp_path / "run").exists()

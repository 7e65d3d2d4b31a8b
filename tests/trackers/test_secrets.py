"""No key, password or address with a password reaches a tracker."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.cli import cli
from harness.cli.entry import run_cli
from harness.trackers.redaction import HIDDEN, without_secrets
from tests.support.servers.chat_server import ChatServer
from tests.support.trackers import offline_environment

SECRET = "hunter2hunter2"


@pytest.mark.parametrize(
    "name", ["api_key", "apiKey", "X-API-Key", "Authorization", "password", "hf_token", "token", "client_secret", "key"]
)
def test_values_of_secret_names_are_hidden(name: str) -> None:
    assert without_secrets({"extra_body": [{name: SECRET}]}) == {"extra_body": [{name: HIDDEN}]}


def test_addresses_lose_users_and_queries() -> None:
    assert (
        without_secrets(f"see https://me:{SECRET}@host:8000/v1?token={SECRET} there")
        == "see https://host:8000/v1 there"
    )
    page = "https://mlflow.test/#/experiments/1/runs/abc"
    assert without_secrets(page.replace("//", f"//me:{SECRET}@", 1)) == page
    assert without_secrets(f"https://host/#access_token={SECRET}") == "https://host/"
    assert without_secrets(f"header Bearer {SECRET}") == f"header {HIDDEN}"


def test_what_is_no_secret_stays() -> None:
    config = {
        "max_tokens": 9,
        "stop_token_ids": [1, 2],
        "dataset": "arc1/evaluation#n=5#seed=3",
        "servers": ["http://127.0.0.1:8000"],
        "api_key": None,
        "encoder": "MinimalGridEncoder()",
    }
    assert without_secrets(config) == config


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_redaction_is_idempotent_and_keeps_the_shape(value: object) -> None:
    once = without_secrets(value)
    assert without_secrets(once) == once
    assert type(once) is type(value) or isinstance(once, str)


@pytest.mark.slow
def test_no_secret_of_a_run_reaches_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in offline_environment(tmp_path / "stores").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.argv", ["bench", "run", "--api-key", SECRET])
    (tmp_path / "stores").mkdir()
    with ChatServer() as server:
        words = [
            "run", "--server", server.url, "--model", "base", "--dataset", "toy/copy/evaluation#n=4", "-n", "2",
            "--prompt", "compact-v0", "--grid-encoder", "MinimalGridEncoder()", "--out", str(tmp_path / "run"),
            "--api-key", SECRET, "--extra-body", f'{{"password": "{SECRET}"}}',
            "--report-to", "wandb,trackio,tensorboard",
        ]  # fmt: skip
        assert run_cli(cli, words) == 0
    files = [path for path in (tmp_path / "stores").rglob("*") if path.is_file()]
    assert {path.relative_to(tmp_path / "stores").parts[0] for path in files} == {"wandb", "trackio", "tensorboard"}
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
    assert any(b"session/seconds" in path.read_bytes() for path in files)

"""What a server says of itself under /v1/models, as far as a run believes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.client.server_log import local_log


def entries(log: object) -> list[dict[str, Any]]:
    return [{"id": "a"}, {"id": "b", "arc_bench": {"log": log}}]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_a_server_on_this_machine_names_its_log(tmp_path: Path, host: str) -> None:
    log = tmp_path / "serve.log"
    log.write_text("all is well\n")
    assert local_log(f"http://{host}:8000", entries(str(log))) == log


@pytest.mark.parametrize(
    "url", ["http://10.0.0.1:8000", "https://localhost.example.org", "http://example.org/127.0.0.1"]
)
def test_a_path_that_another_machine_names_is_not_opened(tmp_path: Path, url: str) -> None:
    log = tmp_path / "serve.log"
    log.write_text("all is well\n")
    assert local_log(url, entries(str(log))) is None


@pytest.mark.parametrize("named", [None, "", 7, ["x"], "absent.log", "/"])
def test_a_path_that_is_not_a_readable_file_is_ignored(named: object) -> None:
    assert local_log("http://127.0.0.1:8000", entries(named)) is None

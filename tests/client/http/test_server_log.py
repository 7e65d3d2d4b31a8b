"""The root cause of a server's end, from real logs of vLLM 0.32 on a CPU; each file is one provoked failure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.client.http.server_log import local_log, root_cause

LOGS = Path(__file__).parents[2] / "fixtures" / "server_logs"
CAUSES = {
    "bad-arch": "Model architectures ['NoSuchForCausalLM'] are not supported",
    "bad-parser": "Reasoning parser 'nosuch' not found",
    "bad-value": "argument --max-num-seqs: invalid int value: 'many'",
    "cut-weights": "SafetensorError: Error while deserializing header",
    "inspection-ended": "'vllm.model_executor.models.registry']' died with <Signals.SIGTERM: 15>",
    "kill-engine": "killed from outside",
    "kubernetes-port": "unset VLLM_PORT",
    "kv-small": "lower --kv-cache-gib",
    "no-compiler": "apt-get install g++ python3-dev",
    "no-libnuma": "apt-get install libnuma1",
    "no-lscpu": "Command 'lscpu --json",
    "no-python-headers": "apt-get install python3-dev",
    "port-taken": "Address already in use: the port was taken in the meantime",
    "tokenizer-json": "JSONDecodeError: Expecting property name",
    "unknown-option": "unrecognized arguments: --no-such-option",
}


def test_every_log_has_an_expected_cause() -> None:
    assert {path.stem for path in LOGS.glob("*.log")} == set(CAUSES)


@pytest.mark.parametrize("name", CAUSES)
def test_the_cause_of_each_log_is_found(name: str) -> None:
    cause = root_cause(LOGS / f"{name}.log")
    assert cause is not None
    assert CAUSES[name] in cause
    assert "\n" not in cause
    assert "root cause above" not in cause


@pytest.mark.parametrize("name", CAUSES)
def test_a_log_that_is_cut_anywhere_can_be_read(name: str, tmp_path: Path) -> None:
    """A server may be killed in the middle of a line, and a large log is read from its end only."""
    content = (LOGS / f"{name}.log").read_bytes()
    part = tmp_path / "log"
    for i in range(8):
        part.write_bytes(content[: i * len(content) // 8])
        root_cause(part)
        part.write_bytes(content[i * len(content) // 8 :])
        root_cause(part)


def test_no_log_and_a_log_without_errors_have_no_cause(tmp_path: Path) -> None:
    assert root_cause(tmp_path / "absent") is None
    (tmp_path / "log").write_text("(APIServer pid=1) INFO 11-29 05:00:00 [entry.py:1] all is well\n")
    assert root_cause(tmp_path / "log") is None


def test_a_warning_with_a_traceback_is_no_cause(tmp_path: Path) -> None:
    """vLLM logs some exceptions as warnings and continues."""
    start = "(EngineCore pid=7) WARNING 11-29 05:00:00 [core.py:1] "
    lines = [f"{start}Traceback (most recent call last):", f"{start}ValueError: lived with"]
    (tmp_path / "log").write_text("\n".join([*lines, "Traceback (most recent call last):", "OSError: the end"]))
    assert root_cause(tmp_path / "log") == "OSError: the end"


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

"""The client for /admin/adapters and the commands bench serve and bench adapters, without vLLM."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pytest
from click.testing import CliRunner

from harness.cli.entry import run_cli
from harness.core.errors import AdapterError, ServerError
from serve.client import admin
from serve.commands.adapters import adapters as adapters_command
from serve.commands.serve import serve as serve_command
from serve.launch.preparation import free_port
from serve.launch.process import is_responding
from tests.support.models.tiny_adapters import make_adapter, make_base


class Redirecting(BaseHTTPRequestHandler):
    """A server that sends every request elsewhere, and notes what reaches ``/elsewhere``."""

    reached: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        if self.path == "/elsewhere":
            self.reached.append(str(self.headers))
        self.send_response(302)
        self.send_header("Location", f"http://localhost:{self.server.server_address[1]}/elsewhere")
        self.end_headers()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_redirect_does_not_take_the_key_to_another_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARC_BENCH_ADMIN_KEY", "administrator")
    with HTTPServer(("127.0.0.1", 0), Redirecting) as server:
        thread = Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            for request in (admin.list_adapters, lambda url: admin.load(url, "a")):
                with pytest.raises(
                    ServerError, match=r"answered 302 Found to http://localhost:\d+/elsewhere, which is"
                ):
                    request(f"http://127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()
            thread.join()
    assert not Redirecting.reached


class Answering(BaseHTTPRequestHandler):
    """A server that is not an arc-bench server: it answers every request with the class's ``reply``."""

    reply: tuple[int, bytes] = (200, b"{}")

    def do_GET(self) -> None:
        self.send_response(self.reply[0])
        self.end_headers()
        self.wfile.write(self.reply[1])

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def stranger() -> Iterator[str]:
    """The address of such a server."""
    server = HTTPServer(("127.0.0.1", 0), Answering)
    thread = Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("reply", "error", "message"),
    [
        (
            (404, json.dumps({"error": {"message": "a: not in the registry"}}).encode()),
            AdapterError,
            "not in the registry",
        ),
        ((401, json.dumps({"error": {"message": "wrong key"}}).encode()), ServerError, "from ARC_BENCH_ADMIN_KEY"),
        ((500, json.dumps({"error": {"message": "boom"}}).encode()), ServerError, "boom"),
        ((404, b"<html>"), ServerError, "is it an arc-bench server"),
        ((200, b"[]"), ServerError, "answered something else than an arc-bench server does"),
        ((200, b"{}"), ServerError, "answered something else than an arc-bench server does"),
        ((200, b'{"asleep": true, "models": []}'), ServerError, "answered something else than an arc-bench server"),
        ((200, b"not json"), ServerError, "no answer from a server"),
    ],
)
def test_errors_of_a_server_are_reported(
    stranger: str, reply: tuple[int, bytes], error: type[Exception], message: str
) -> None:
    Answering.reply = reply
    with pytest.raises(error, match=message):
        admin.load(stranger, "a")


def test_a_missing_server_is_reported() -> None:
    with pytest.raises(ServerError, match="is it running"):
        admin.list_adapters(f"http://127.0.0.1:{free_port('127.0.0.1', None)}")
    with pytest.raises(ServerError, match="expected an address"):
        admin.list_adapters("file:///etc/passwd")


def test_requests_ignore_proxies_of_the_environment(stranger: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port('127.0.0.1', None)}")
    monkeypatch.setattr("urllib.request._opener", None)  # which remembers the environment of its first use
    listing = {"base": "b", "swaps": 0, "adapters": []}
    Answering.reply = (200, json.dumps(listing).encode())
    assert is_responding(stranger)
    assert admin.list_adapters(stranger) == listing


def test_the_registry_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = make_base(tmp_path / "toy-base")
    source = make_adapter(tmp_path / "a", base=str(base))
    root = str(tmp_path / "adapters")
    assert run_cli(adapters_command, ["add", "flips", str(source), "--adapters", root]) == 0
    added = capsys.readouterr().out.strip()
    assert re.fullmatch(r"flips@[0-9a-f]{12}", added)
    assert run_cli(adapters_command, ["list", "--adapters", root, "--json", "-"]) == 0
    listing = json.loads(capsys.readouterr().out)[root]
    assert listing["adapters"] == [{"name": "flips", "live": None, "versions": [{"id": added, "state": "registered"}]}]
    assert run_cli(adapters_command, ["remove", added, "--adapters", root]) == 0
    assert run_cli(adapters_command, ["remove", added, "--adapters", root]) == 1
    assert "error: " in capsys.readouterr().err
    wrong = make_adapter(tmp_path / "b", base=str(base), layers=3)
    assert run_cli(adapters_command, ["add", "flips", str(wrong), "--adapters", root]) == 1
    assert "has no such module" in capsys.readouterr().err
    assert run_cli(adapters_command, ["load", "flips", "--adapters", root]) == 1
    assert "no server runs on this registry" in capsys.readouterr().err
    assert run_cli(adapters_command, ["load", "flips"]) == 2
    assert run_cli(serve_command, ["--stop", "--adapters", root]) == 1
    assert run_cli(serve_command, []) == 2


def test_every_command_has_help_with_an_example() -> None:
    for command in (serve_command, *adapters_command.commands.values()):
        shown = CliRunner().invoke(command, ["--help"])
        assert shown.exit_code == 0
        assert "Example: bench " in shown.output

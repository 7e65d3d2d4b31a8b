"""Hostile clients and files can reach neither keys nor other files, and no code from files is run.

Limits of sizes are tested in ``serve/server/http/test_limits.py``, a running vLLM in ``serving/test_exposed.py``,
checkpoints in ``test_foreign_files.py``. Calls that run code (eval, pickle, shell) are forbidden by ruff's S rules and
bandit.
"""

from __future__ import annotations

import asyncio
import http.client
import pickle
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from harness.cli import cli
from harness.cli.entry import run_cli
from harness.core.errors import AdapterError, ConfigError, ServerError
from serve.keys import Keys
from serve.launch.extra_options import refuse_reserved_options
from serve.registry.base_model import BaseModel
from serve.registry.store import Registry
from serve.registry.validation.adapter import validate_adapter
from tests.sampling.test_run_cli import run_arguments
from tests.support.models.tiny_adapters import make_adapter, make_base
from tests.support.servers.admin_site import NO_KEYS, Site
from tests.support.servers.chat_server import ChatServer
from tests.support.servers.hostile import PickleBomb, open_site

USER, ADMIN = "user-key-0123456789", "admin-key-0123456789"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    server = open_site(tmp_path, NO_KEYS)
    yield server
    server.lease.close()


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Site]:
    server = open_site(tmp_path, Keys(USER, ADMIN))
    yield server
    server.lease.close()


# Code in files.


def test_pickles_are_refused_as_adapter_and_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    witness = tmp_path / "witness"
    bomb = PickleBomb(witness)
    adapter, model = make_adapter(tmp_path / "adapter"), make_base(tmp_path / "model")
    for folder, name in ((adapter, "adapter_model"), (model, "pytorch_model")):
        for weights in folder.glob("*.safetensors"):
            weights.unlink()
        (folder / f"{name}.bin").write_bytes(pickle.dumps(bomb))
    with pytest.raises(AdapterError, match="is a pickle"):
        Registry(tmp_path / "adapters").add("a", adapter)
    with pytest.raises(ServerError, match=r"pytorch_model\.bin: is a pickle; only safetensors"):
        BaseModel.open(model).refuse_pickles()
    assert not witness.exists()
    pickle.loads((model / "pytorch_model.bin").read_bytes())
    assert witness.exists(), "the pickle does not work, so the test shows nothing"


@pytest.mark.parametrize("pattern", ["(a+)+", "(.*)*x", "([a-z]+.)+!", "(a|a)*b", "(a|aa){5,}", ".*.*.*.*.*!"])
@pytest.mark.parametrize("kind", ["rank_pattern", "alpha_pattern"])
def test_slow_regular_expressions_are_refused(tmp_path: Path, kind: str, pattern: str) -> None:
    """vLLM would match both patterns with the name of every module in its server process."""
    folder = make_adapter(tmp_path / "adapter", **{kind: {pattern: 4}})
    with pytest.raises(AdapterError, match="too involved"):
        validate_adapter(folder)


@pytest.mark.parametrize("alpha", [float("nan"), float("inf"), -1, 0, "8", True, None])
def test_invalid_scales_are_refused(tmp_path: Path, alpha: object) -> None:
    for changes in ({"alpha_pattern": {"q_proj": alpha}}, {"alpha_pattern": [alpha]}, {"lora_alpha": alpha}):
        with pytest.raises(AdapterError, match="expected a positive number"):
            validate_adapter(make_adapter(tmp_path / next(iter(changes)) / str(len(str(changes))), **changes))


# Adapter names.

PATHS = [
    "..", "../a", "../../etc/passwd", "/etc/passwd", "a/../a", "./a", "a/", "a\\..\\b", "~", "~/a", "file:///etc/passwd",
    "%2e%2e%2fa", "..%2f..%2fetc", "a%00", "a\x00b", "\x00", "a\n", "a\r\nX: y", ".", ".servers", ".lock", "live.json",
    "a@../../x", "a@/etc", "a@" + "0" * 12 + "/..", "A" * 101, "A" * 100_000, "\u2025/a", "\uff0e\uff0e/a",
]  # fmt: skip


@pytest.mark.parametrize("name", PATHS, ids=lambda name: ascii(name)[:30])
def test_adapter_names_are_not_used_as_paths(site: Site, tmp_path: Path, name: str) -> None:
    before = sorted(tmp_path.rglob("*"))

    async def scenario() -> None:
        for action in ("load", "unload", "promote", "rollback", "remove"):
            for body in ({"adapter": name}, {"adapter": "a", "path": name}, {"adapter": "a", "lora_path": name}):
                status, _ = await site.request("POST", f"/admin/adapters/{action}", body, x_adapter=ascii(name)[:99])
                assert status in (400, 404, 422), (action, body)
        for path in ("/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"):
            assert (await site.request("POST", path, {"model": name, "prompt": "x"}))[0] in (400, 404)
        for path in (f"/admin/adapters/{name}", f"/v1/completions/{name}", f"/v1/models/{name}", f"/{name}"):
            assert (await site.request("POST", path, {"adapter": "a"}))[0] == 404

    asyncio.run(scenario())
    assert site.inner.calls == []
    assert site.engine.models == set()
    assert sorted(tmp_path.rglob("*")) == before


# Keys.


def test_keys_are_compared_in_constant_time(locked: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The decision is that of hmac.compare_digest: for every key, and if it says no, for the right key too."""
    compared: list[bytes] = []

    def refuse(key: bytes, expected: bytes) -> bool:
        compared.append(key)
        return False

    monkeypatch.setattr("hmac.compare_digest", refuse)
    for key in ("x", USER[:-1], USER):
        assert asyncio.run(locked.request("GET", "/v1/models", authorization=f"Bearer {key}"))[0] == 401
        assert compared.pop() == key.encode()


@pytest.mark.parametrize(
    "shown", ["", "Bearer", f"Bearer {USER} ", f"bearer {USER}", f"Bearer {USER}\xff", f"Basic {USER}"]
)
def test_only_the_right_key_is_accepted(locked: Site, shown: str) -> None:
    status, answer = asyncio.run(locked.request("GET", "/v1/models", authorization=shown))
    assert status == (200 if shown.lower().strip() == f"bearer {USER}".lower() else 401)
    assert USER not in str(answer)


def test_keys_are_accepted_only_in_the_authorization_header(locked: Site) -> None:
    for path in (f"/v1/models?key={USER}", f"/v1/models?api_key={USER}"):
        assert over_wire(locked, "GET", path)[0] == 401
    for name in ("x-api-key", "api-key", "cookie", "proxy-authorization"):
        assert over_wire(locked, "GET", "/v1/models", **{name: USER})[0] == 401
    assert over_wire(locked, "GET", "/v1/models", authorization=f"Bearer {USER}")[0] == 200


def over_wire(site: Site, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
    """Send a request over HTTP and return status and body of the response."""
    with site.over_http() as url:
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
        connection.request(method, path, body, headers)
        reply = connection.getresponse()
        return reply.status, reply.read()


@pytest.mark.parametrize("wrong", [False, True])
def test_the_key_of_a_run_is_neither_stored_nor_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, wrong: bool
) -> None:
    """Also if the key is wrong, when a server may repeat it in its error message."""
    shown = "wrong-" + USER if wrong else USER
    monkeypatch.setenv("ARC_BENCH_API_KEY", shown)
    with ChatServer(key=USER) as server:
        assert run_cli(cli, run_arguments(server, tmp_path / "run")) == (1 if wrong else 0)
    captured = capsys.readouterr()
    assert USER not in captured.out + captured.err
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files or wrong
    assert not [path for path in files if USER.encode() in path.read_bytes()]


@pytest.mark.parametrize("key", ["line\nbreak-key", "ümlaut-key-long", "nul\x00-key-long"])
def test_errors_about_invalid_keys_do_not_show_the_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    with ChatServer() as server:
        assert run_cli(cli, [*run_arguments(server, tmp_path / "run"), "--api-key", key]) == 2
    message = capsys.readouterr().err
    assert message == "error: the API key holds something else than printable ASCII characters\n"


def test_urls_with_a_password_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ChatServer() as server:
        arguments = run_arguments(server, tmp_path / "run")
        arguments[2] = server.url.replace("http://", f"http://me:{USER}@")
        assert run_cli(cli, arguments) == 2
    assert USER not in capsys.readouterr().err


def test_keys_are_refused_on_the_command_line_of_a_server() -> None:
    for words_ in (["--api-key", USER], [f"--api-key={USER}"], ["--api_key", USER], ["--api-k", USER]):
        with pytest.raises(ConfigError, match="list of processes") as caught:
            refuse_reserved_options(words_)
        assert USER not in str(caught.value)
    with pytest.raises(ConfigError, match="PyTorch files"):
        refuse_reserved_options(["--enable-prompt-embeds"])

"""What a hostile client, file or mistake could get at: keys, other files, code in what is read.

Sizes: ``test_limits.py``; a running vLLM: ``serving/test_exposed.py``; checkpoints: ``test_foreign_files.py``.
"""

from __future__ import annotations

import ast
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
from serve.registry.validation import validate_adapter
from tests.conftest import ROOT
from tests.sampling.test_run_cli import words
from tests.support.admin_site import NO_KEYS, Site
from tests.support.chat_server import ChatServer
from tests.support.hostile import PickleBomb, called, open_site
from tests.support.tiny_adapters import make_adapter, make_base

USER, ADMIN = "user-key-0123456789", "admin-key-0123456789"
SHIPPED = ("harness", "trainers", "serve", "reports")
RUN_CODE = {"eval", "exec", "compile", "__import__"}
MODULES_THAT_RUN_CODE = {"pickle", "marshal", "shelve", "joblib", "dill", "cloudpickle"}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    found = open_site(tmp_path, NO_KEYS)
    yield found
    found.lease.close()


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Site]:
    found = open_site(tmp_path, Keys(USER, ADMIN))
    yield found
    found.lease.close()


# No code out of files.


def test_nothing_that_is_read_is_run() -> None:
    for path in (p for package in SHIPPED for p in sorted((ROOT / package).rglob("*.py"))):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                assert not {alias.name.split(".")[0] for alias in node.names} & MODULES_THAT_RUN_CODE, path
            if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in MODULES_THAT_RUN_CODE:
                assert [alias.name for alias in node.names] == ["UnpicklingError"], path
        for name, call in called(tree):
            options = {keyword.arg: keyword.value for keyword in call.keywords}
            assert name not in RUN_CODE | {"torch.load", "yaml.load", "os.system", "os.popen"}, (path, name)
            for option in ("shell", "trust_remote_code", "allow_pickle"):
                assert option not in options, (path, name, option)
            if name.endswith("AutoModelForCausalLM.from_pretrained") and path.parent.name != "tiny":  # reads its own
                assert ast.unparse(options["use_safetensors"]) == "True", path


def test_a_pickle_is_no_adapter_and_no_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert witness.exists(), "the bomb is none, and the test says nothing"


@pytest.mark.parametrize("pattern", ["(a+)+", "(.*)*x", "([a-z]+.)+!", "(a|a)*b", "(a|aa){5,}", ".*.*.*.*.*!"])
@pytest.mark.parametrize("kind", ["rank_pattern", "alpha_pattern"])
def test_a_pattern_that_takes_for_ever_is_refused(tmp_path: Path, kind: str, pattern: str) -> None:
    """vLLM matches both with the name of every module, in the process that answers."""
    folder = make_adapter(tmp_path / "adapter", **{kind: {pattern: 4}})
    with pytest.raises(AdapterError, match="too involved"):
        validate_adapter(folder)


@pytest.mark.parametrize("alpha", [float("nan"), float("inf"), -1, 0, "8", True, None])
def test_a_scale_that_is_no_number_is_refused(tmp_path: Path, alpha: object) -> None:
    for changes in ({"alpha_pattern": {"q_proj": alpha}}, {"alpha_pattern": [alpha]}, {"lora_alpha": alpha}):
        with pytest.raises(AdapterError, match="expected a positive number"):
            validate_adapter(make_adapter(tmp_path / next(iter(changes)) / str(len(str(changes))), **changes))


# Adapters by name only.

PATHS = [
    "..", "../a", "../../etc/passwd", "/etc/passwd", "a/../a", "./a", "a/", "a\\..\\b", "~", "~/a", "file:///etc/passwd",
    "%2e%2e%2fa", "..%2f..%2fetc", "a%00", "a\x00b", "\x00", "a\n", "a\r\nX: y", ".", ".servers", ".lock", "live.json",
    "a@../../x", "a@/etc", "a@" + "0" * 12 + "/..", "A" * 101, "A" * 100_000, "\u2025/a", "\uff0e\uff0e/a",
]  # fmt: skip


@pytest.mark.parametrize("name", PATHS, ids=lambda name: ascii(name)[:30])
def test_no_name_is_a_path(site: Site, tmp_path: Path, name: str) -> None:
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


def test_keys_are_compared_in_constant_time_only() -> None:
    tree = ast.parse((ROOT / "serve" / "keys.py").read_text(encoding="utf-8"))
    assert [name for name, _ in called(tree)].count("hmac.compare_digest") == 1
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and not all(isinstance(op, ast.Is | ast.IsNot) for op in node.ops):
            assert not {"shown", "wanted", "self.user", "self.admin"} & {
                ast.unparse(side) for side in (node.left, *node.comparators)
            }, ast.unparse(node)


@pytest.mark.parametrize(
    "shown", ["", "Bearer", f"Bearer {USER} ", f"bearer {USER}", f"Bearer {USER}\xff", f"Basic {USER}"]
)
def test_only_the_key_itself_opens(locked: Site, shown: str) -> None:
    status, answer = asyncio.run(locked.request("GET", "/v1/models", authorization=shown))
    assert status == (200 if shown.lower().strip() == f"bearer {USER}".lower() else 401)
    assert USER not in str(answer)


def test_no_key_opens_by_another_way(locked: Site) -> None:
    for path in (f"/v1/models?key={USER}", f"/v1/models?api_key={USER}"):
        assert over_wire(locked, "GET", path)[0] == 401
    for name in ("x-api-key", "api-key", "cookie", "proxy-authorization"):
        assert over_wire(locked, "GET", "/v1/models", **{name: USER})[0] == 401
    assert over_wire(locked, "GET", "/v1/models", authorization=f"Bearer {USER}")[0] == 200


def over_wire(site: Site, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, bytes]:
    with site.over_http() as url:
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
        connection.request(method, path, body, headers)
        reply = connection.getresponse()
        return reply.status, reply.read()


@pytest.mark.parametrize("wrong", [False, True])
def test_a_run_leaves_its_key_nowhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, wrong: bool
) -> None:
    """Neither in the folder of the run nor on the screen; where the key is wrong the server may even repeat it."""
    shown = "wrong-" + USER if wrong else USER
    monkeypatch.setenv("ARC_BENCH_API_KEY", shown)
    with ChatServer(key=USER) as server:
        assert run_cli(cli, words(server, tmp_path / "run")) == (1 if wrong else 0)
    told = capsys.readouterr()
    assert USER not in told.out + told.err
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert kept or wrong
    assert not [path for path in kept if USER.encode() in path.read_bytes()]


@pytest.mark.parametrize("key", ["line\nbreak-key", "ümlaut-key-long", "nul\x00-key-long"])
def test_a_key_that_no_header_can_hold_is_told_without_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    with ChatServer() as server:
        assert run_cli(cli, [*words(server, tmp_path / "run"), "--api-key", key]) == 2
    told = capsys.readouterr().err
    assert told == "error: the API key holds something else than printable ASCII characters\n"


def test_an_address_with_a_password_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ChatServer() as server:
        arguments = words(server, tmp_path / "run")
        arguments[2] = server.url.replace("http://", f"http://me:{USER}@")
        assert run_cli(cli, arguments) == 2
    assert USER not in capsys.readouterr().err


def test_a_server_takes_its_keys_from_nowhere_that_others_see() -> None:
    for words_ in (["--api-key", USER], [f"--api-key={USER}"], ["--api_key", USER], ["--api-k", USER]):
        with pytest.raises(ConfigError, match="list of processes") as caught:
            refuse_reserved_options(words_)
        assert USER not in str(caught.value)
    with pytest.raises(ConfigError, match="PyTorch files"):
        refuse_reserved_options(["--enable-prompt-embeds"])

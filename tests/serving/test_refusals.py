"""What the server refuses: invalid adapters and names, closed routes, hostile bodies."""

from __future__ import annotations

import http.client
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from harness.core.digests import content_hash
from harness.core.errors import AdapterError
from serve.client import admin
from serve.registry.base_model import BaseModel
from serve.registry.safetensors_file import read_header
from serve.server.http.http_json import MAX_BODY
from tests.serve.server.routes.test_admin_api import HOSTILE
from tests.serving.conftest import Site
from tests.serving.world import BASE, PROMPTS, ask, post
from tests.support.models.tiny_adapters import write_safetensors

pytestmark = pytest.mark.slow

Tensors = dict[str, np.ndarray]
Change = Callable[[dict[str, Any], Tensors], None]
Damage = Callable[[Path], object]


def plant(site: Site, name: str, change: Change, damage: Damage) -> str:
    """Put a version into the registry without validation, and return its id."""
    source = site.world.folders["a1"]
    config = json.loads((source / "adapter_config.json").read_text())
    weights = source / "adapter_model.safetensors"
    tensors = {
        key: np.fromfile(weights, "<f4", int(np.prod(t.shape)), offset=t.start).reshape(t.shape)
        for key, t in read_header(weights).items()
    }
    change(config, tensors)
    draft = site.registry.root / name / "draft"
    draft.mkdir(parents=True)
    (draft / "adapter_config.json").write_text(json.dumps(config))
    write_safetensors(draft / "adapter_model.safetensors", tensors)
    damage(draft)
    version = content_hash(draft)[:12]
    draft.rename(draft.with_name(version))
    return f"{name}@{version}"


def configured(**more: Any) -> Change:
    return lambda config, tensors: config.update(more)


def poison(config: dict[str, Any], tensors: Tensors) -> None:
    next(iter(tensors.values()))[0, 0] = np.nan


def extra_layer(config: dict[str, Any], tensors: Tensors) -> None:
    for key in [key for key in tensors if ".layers.0." in key]:
        tensors[key.replace(".layers.0.", ".layers.9.")] = tensors[key]


def wider(config: dict[str, Any], tensors: Tensors) -> None:
    for key in [key for key in tensors if key.endswith("lora_A.weight")]:
        tensors[key] = np.concatenate([tensors[key]] * 2, axis=1)


def higher(config: dict[str, Any], tensors: Tensors) -> None:
    config["r"] = 32
    for key in list(tensors):
        tensors[key] = np.concatenate([tensors[key]] * 4, axis=0 if "lora_A" in key else 1)


def on_the_head(config: dict[str, Any], tensors: Tensors) -> None:
    for part, shape in (("A", (8, 128)), ("B", (320, 8))):
        tensors[f"base_model.model.lm_head.lora_{part}.weight"] = np.zeros(shape, np.float32)


def on_the_embeddings(config: dict[str, Any], tensors: Tensors) -> None:
    for part, shape in (("A", (8, 320)), ("B", (128, 8))):
        tensors[f"base_model.model.model.embed_tokens.lora_embedding_{part}"] = np.zeros(shape, np.float32)


def truncate(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def fill_with_garbage(folder: Path) -> None:
    (folder / "adapter_model.safetensors").write_bytes(b"\x07garbage" * 50)


def tear_configuration(folder: Path) -> None:
    path = folder / "adapter_config.json"
    path.write_bytes(path.read_bytes()[:100])


def leave_whole(folder: Path) -> None:
    """Do not damage the files."""


UNCHANGED = configured()
BAD: dict[str, tuple[Change, Damage, str]] = {
    # What vLLM accepts in silence.
    "nan": (poison, leave_whole, "NaN, infinite"),
    "other-base": (configured(base_model_name_or_path="somebody/else"), leave_whole, "trained on 'somebody/else'"),
    "deep": (extra_layer, leave_whole, "layer 9, but its layers are 0-2"),
    # What vLLM refuses with status 500.
    "high-rank": (higher, leave_whole, "rank 32 is above this server's --max-lora-rank 16"),
    "dora": (configured(use_dora=True), leave_whole, "DoRA"),
    "saved-modules": (configured(modules_to_save=["lm_head"]), leave_whole, "modules_to_save"),
    "bias": (configured(bias="all"), leave_whole, "trains biases"),
    "pissa": (configured(init_lora_weights="pissa"), leave_whole, "'pissa' changed the base weights"),
    "tokens": (configured(trainable_token_indices=[1]), leave_whole, "trained token embeddings"),
    "head": (on_the_head, leave_whole, "does not serve for Qwen2ForCausalLM"),
    "embeddings": (on_the_embeddings, leave_whole, "does not serve for Qwen2ForCausalLM"),
    "wide": (wider, leave_whole, "fits a layer of"),
    "truncated": (UNCHANGED, truncate, "truncated"),
    "garbage": (UNCHANGED, fill_with_garbage, "not a safetensors file"),
    "torn-json": (UNCHANGED, tear_configuration, "not JSON"),
}


@pytest.mark.parametrize("name", BAD)
def test_an_adapter_that_cannot_be_served_is_refused(site: Site, name: str) -> None:
    change, damage, reason = BAD[name]
    base = BaseModel.open(site.world.model)
    planted = plant(site, name, change, damage)
    try:
        for action in ("load", "promote"):
            status, answer = post(f"{site.url}/admin/adapters/{action}", {"adapter": planted})
            assert (status, reason in answer["error"]["message"]) == (422, True), answer
        assert post(f"{site.url}/v1/completions", {"model": planted, "prompt": "x"})[0] == 404
        if name != "high-rank":  # another server may take it
            with pytest.raises(AdapterError):
                site.registry.add("again", site.registry.root / planted.replace("@", "/"), base)
    finally:
        shutil.rmtree(site.registry.root / name)
    assert site.world.is_right(site.world.ids["a1"], 1, ask(site.url, "a", PROMPTS[1])[1])
    assert site.world.is_right(BASE, 1, ask(site.url, BASE, PROMPTS[1])[1])


def test_links_in_the_registry_are_not_followed(site: Site, tmp_path: Path) -> None:
    version = site.world.ids["a2"].partition("@")[2]
    shutil.copytree(site.registry.root / "a" / version, tmp_path / "outside" / version)
    (site.registry.root / "linked").symlink_to(tmp_path / "outside")
    home = site.registry.root / "half"
    home.mkdir()
    (home / version).symlink_to(tmp_path / "outside" / version)
    whole = site.registry.root / "file" / version
    whole.mkdir(parents=True)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (whole / name).symlink_to(tmp_path / "outside" / version / name)
    try:
        for name, status in (("linked", 404), ("half", 404), ("file", 422)):
            body = {"adapter": f"{name}@{version}"}
            got, answer = post(f"{site.url}/admin/adapters/load", body)
            assert got == status, answer
    finally:
        (site.registry.root / "linked").unlink()
        shutil.rmtree(home)
        shutil.rmtree(whole.parent)


@pytest.mark.parametrize(
    "adapter", ["../../etc", "/etc/passwd", "a/../b", "nobody", "a@000000000000", "", "a" * 101, 7]
)
def test_clients_name_adapters_and_never_paths(site: Site, adapter: object) -> None:
    for action in ("load", "unload", "promote", "rollback", "remove"):
        status, answer = post(f"{site.url}/admin/adapters/{action}", {"adapter": adapter})
        assert 400 <= status < 500
        assert answer["error"]["message"]
    assert post(f"{site.url}/admin/adapters/load", {"adapter": "a", "lora_path": "/tmp/x"})[0] == 400


def test_vllms_own_routes_are_closed(site: Site) -> None:
    for path in ("/v1/load_lora_adapter", "/adapters", "/invocations", "/pause", "/inference/v1/generate", "/docs"):
        assert post(site.url + path, {"model": BASE, "prompt": "x", "lora_name": "x", "lora_path": "/x"})[0] == 404


def test_a_prompt_beyond_the_context_is_refused(site: Site) -> None:
    for model in (BASE, "a"):
        status, answer = post(f"{site.url}/v1/completions", {"model": model, "prompt": [1] * 3000, "max_tokens": 1})
        assert status == 400
        assert "2048" in answer["error"]["message"]


def test_the_error_for_an_unknown_model_lists_the_known_ones(site: Site) -> None:
    for path, prompt in (("completions", {"prompt": "x"}), ("chat/completions", {"messages": []})):
        status, answer = post(f"{site.url}/v1/{path}", {"model": "nope", **prompt})
        assert status == 404
        assert all(name in answer["error"]["message"] for name in (BASE, " a,", " b,", site.world.ids["a1"]))


def send(url: str, method: str, path: str, body: bytes, kind: str) -> tuple[int, bytes]:
    """Send a request on a connection of its own; return status and body, or status 0 if the server closed it."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=120)
    try:
        connection.request(method, path, body, {"Content-Type": kind})
        reply = connection.getresponse()
        return reply.status, reply.read()
    except (ConnectionError, http.client.HTTPException):
        return 0, b""
    finally:
        connection.close()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(request=HOSTILE)
def test_hostile_requests_to_the_running_server(site: Site, request: tuple[str, str, Any, str]) -> None:
    method, path, value, kind = request
    before = listing(site)
    status, text = send(site.url, method, path, value if isinstance(value, bytes) else json.dumps(value).encode(), kind)
    assert status < 500, (request, text)
    if status >= 300:
        assert listing(site) == before, request
    site.world.publish(site.registry)
    site.world.set_live(site.url, "a1", "b1", "c1", "d1")
    assert site.world.is_right(site.world.ids["b1"], 0, ask(site.url, "b", PROMPTS[0])[1])


def listing(site: Site) -> dict[str, Any]:
    """Return the server's list of adapters without request counts, once no version is retiring."""
    while True:
        answer = admin.list_adapters(site.url)
        rows = [row for adapter in answer["adapters"] for row in adapter["versions"]]
        if all(row["state"] != "retiring" for row in rows):
            for row in rows:
                row.pop("served", None)
            return answer


def test_malformed_and_oversized_bodies_are_refused(site: Site) -> None:
    for body in (b"{", b"[]", b"[" * 100_000, b'{"a":' * 100_000, b"\xff", b'{"model": 1e999}', b"x" * (MAX_BODY + 1)):
        for path in ("/v1/completions", "/v1/chat/completions", "/tokenize", "/admin/adapters/load"):
            status, _ = send(site.url, "POST", path, body, "application/json")
            assert status in (400, 413) or (status == 0 and len(body) > MAX_BODY), (path, body[:10])
    assert site.world.is_right(site.world.ids["a1"], 0, ask(site.url, "a", PROMPTS[0])[1])


def test_a_loaded_version_cannot_be_removed(site: Site) -> None:
    with pytest.raises(AdapterError, match="knows it"):
        site.registry.remove("b")
    assert post(f"{site.url}/admin/adapters/remove", {"adapter": "b"})[0] == 409

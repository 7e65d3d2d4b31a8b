"""The server for real: vLLM on a tiny random model in float32, compared with what transformers and PEFT answer."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import psutil
import pytest

from harness.errors import AdapterError, ServerError
from harness.rng import Stream
from serve import admin
from serve.base_model import BaseModel
from serve.command import ServeConfig
from serve.launcher import Server, serving, start, stop, wait_until_ready
from serve.leases import file_lock, running_servers
from serve.registry import Registry
from serve.tensorfile import read_header
from serve.version import content_hash
from tests.adapter_toys import write_safetensors
from tests.tiny_qwen import greedy_answers, make_lora, make_model

pytestmark = pytest.mark.slow

PROMPTS = [[Stream("prompt", i, j).below(250) for j in range(20)] for i in range(16)]
TOKENS = 12


@dataclass(frozen=True)
class Site:
    """A running server, its registry, and what each model must answer to each of PROMPTS."""

    server: Server
    registry: Registry
    model: Path
    folders: dict[str, Path]
    expected: dict[str, list[list[int]]]
    ids: dict[str, str]

    @property
    def url(self) -> str:
        return self.server.url


def post(url: str, body: dict[str, Any], seconds: float = 120) -> tuple[int, dict[str, Any]]:
    """Status and JSON of a POST."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=seconds) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def ask(url: str, model: str, prompt: list[int], **more: Any) -> tuple[str, list[int]]:
    """The version that answered, and its token ids at temperature 0."""
    body = {"model": model, "prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True}
    status, answer = post(f"{url}/v1/completions", body | {"return_token_ids": True} | more)
    assert status == 200, answer
    assert answer["choices"][0]["finish_reason"] == "length", answer
    return answer["model"], answer["choices"][0]["token_ids"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    root = tmp_path_factory.mktemp("serve")
    model = make_model(root / "tiny")
    folders = {name: make_lora(root / name, model, seed) for seed, name in enumerate(("a1", "a2", "b1", "c1"))}
    expected = {name: greedy_answers(model, folder, PROMPTS, TOKENS) for name, folder in folders.items()}
    expected["base"] = greedy_answers(model, None, PROMPTS, TOKENS)
    for one, two in itertools.combinations(expected, 2):
        assert all(x != y for x, y in zip(expected[one], expected[two], strict=True)), (one, two)
    registry = Registry(root / "adapters")
    with serving(model, registry.root, log=root / "log", dtype="float32", max_loras=2) as server:
        # Added while the server runs, and loaded by hot-swap.
        base = BaseModel.open(model)
        ids = {name: registry.add(name[0], folder, base).id for name, folder in folders.items()}
        for name in ("a1", "b1", "c1"):
            admin.load(server.url, ids[name])
        yield Site(server, registry, model, folders, expected | {ids[n]: expected[n] for n in ids}, ids)


def test_base_and_adapters_answer_as_peft_does(site: Site) -> None:
    for model, name in (("tiny", "base"), ("a", "a1"), ("b", "b1"), (site.ids["a1"], "a1")):
        for prompt, expected in zip(PROMPTS, site.expected[name], strict=True):
            answered, tokens = ask(site.url, model, prompt)
            assert tokens == expected
            assert answered == (model if name == "base" else site.ids[name])


def test_base_requests_beside_adapters_are_the_bases(site: Site) -> None:
    work = [(model, i) for i in range(len(PROMPTS)) for model in ("tiny", "a", "b", "tiny")]
    with ThreadPoolExecutor(32) as threads:
        answers = list(threads.map(lambda w: ask(site.url, w[0], PROMPTS[w[1]]), work))
    names = {"tiny": "base", "a": "a1", "b": "b1"}
    wrong = [w for w, (_, tokens) in zip(work, answers, strict=True) if tokens != site.expected[names[w[0]]][w[1]]]
    assert wrong == []


def swap_under_load(site: Site, requests: int, in_flight: int) -> int:
    """Promote, roll back, unload and load until ``requests`` are answered; each must be its named version's answer."""
    done = Event()
    seen: list[tuple[str, list[int], int]] = []

    def traffic(worker: int) -> None:
        for i in itertools.count(worker):
            if done.is_set():
                return
            at = i % len(PROMPTS)
            seen.append((*ask(site.url, ("a", "tiny", "b", "a")[i % 4], PROMPTS[at]), at))

    swaps = 0
    with ThreadPoolExecutor(in_flight) as threads:
        running = [threads.submit(traffic, worker) for worker in range(in_flight)]
        try:
            while len(seen) < requests and not any(future.done() for future in running):
                admin.promote(site.url, site.ids["a2"])
                admin.rollback(site.url, "a")
                admin.unload(site.url, "c")
                admin.load(site.url, site.ids["c1"])
                swaps += 2
        finally:
            done.set()
        for future in running:
            future.result()
    wrong = [(model, at) for model, ids, at in seen if ids != site.expected[{"tiny": "base"}.get(model, model)][at]]
    assert wrong == []
    assert {model for model, *_ in seen} == {site.ids["a1"], site.ids["a2"], site.ids["b1"], "tiny"}
    print(f"{len(seen)} requests during {swaps} swaps and {swaps // 2} reloads: none lost, none wrong")
    return swaps


def test_swaps_under_load_lose_and_mix_nothing(site: Site) -> None:
    before = admin.list_adapters(site.url)["swaps"]
    swaps = swap_under_load(site, 300, 16)
    assert swaps > 2
    assert admin.list_adapters(site.url)["swaps"] == before + swaps


@pytest.mark.long
def test_five_thousand_requests_under_swaps(site: Site) -> None:
    assert swap_under_load(site, 5000, 32) > 20


def test_a_third_adapter_does_not_starve_behind_two_busy_ones(site: Site) -> None:
    done = Event()

    def hot(model: str) -> None:
        while not done.is_set():
            ask(site.url, model, PROMPTS[0])

    with ThreadPoolExecutor(8) as threads:
        running = [threads.submit(hot, model) for model in ("a", "b") * 4]
        try:
            waits = []
            for prompt, expected in zip(PROMPTS[:4], site.expected["c1"], strict=False):
                started = time.monotonic()
                assert ask(site.url, "c", prompt)[1] == expected
                waits.append(time.monotonic() - started)
        finally:
            done.set()
        for future in running:
            future.result()
    print(f"a cold adapter answered after {', '.join(f'{w:.2f}' for w in waits)} s")
    assert max(waits) < 5


def test_a_seed_decides_the_sample(site: Site) -> None:
    def sample(seed: int) -> list[int]:
        return ask(site.url, "a", PROMPTS[0], temperature=1.0, seed=seed)[1]

    with ThreadPoolExecutor(8) as threads:
        draws = list(threads.map(sample, [1, 2, 1, 2, 3, 1]))
    assert draws[0] == draws[2] == draws[5]
    assert draws[1] == draws[3]
    assert len({tuple(d) for d in draws}) == 3


def plant(site: Site, name: str, change: Any) -> str:
    """Put a version into the registry behind its back; gives its id."""
    draft = site.registry.root / name / "draft"
    draft.mkdir(parents=True)
    config = json.loads((site.folders["a1"] / "adapter_config.json").read_text())
    weights = site.folders["a1"] / "adapter_model.safetensors"
    tensors = {
        key: np.fromfile(weights, "<f4", int(np.prod(t.shape)), offset=t.start).reshape(t.shape)
        for key, t in read_header(weights).items()
    }
    change(config, tensors)
    (draft / "adapter_config.json").write_text(json.dumps(config))
    write_safetensors(draft / "adapter_model.safetensors", tensors)
    version = content_hash(draft)[:12]
    draft.rename(draft.with_name(version))
    return f"{name}@{version}"


def test_what_vllm_would_accept_in_silence_never_gets_in(site: Site) -> None:
    def poison(config: dict[str, Any], tensors: dict[str, Any]) -> None:
        next(iter(tensors.values()))[0, 0] = np.nan

    def another_base(config: dict[str, Any], tensors: dict[str, Any]) -> None:
        config["base_model_name_or_path"] = "somebody/else"

    def extra_layer(config: dict[str, Any], tensors: dict[str, Any]) -> None:
        for key in [k for k in tensors if ".layers.0." in k]:
            tensors[key.replace(".layers.0.", ".layers.9.")] = tensors[key]

    for name, change, reason in (
        ("nan", poison, "NaN, infinite"),
        ("other", another_base, "trained on 'somebody/else'"),
        ("deep", extra_layer, "layer 9, but its layers are 0-2"),
    ):
        planted = plant(site, name, change)
        status, answer = post(f"{site.url}/admin/adapters/load", {"adapter": planted})
        assert status == 422
        assert reason in answer["error"]["message"]
        with pytest.raises(AdapterError):
            admin.load(site.url, planted)
        assert post(f"{site.url}/v1/completions", {"model": planted, "prompt": "x"})[0] == 404
        site.registry.remove(name)
    assert ask(site.url, "a", PROMPTS[1])[1] == site.expected["a1"][1]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"adapter": "../../etc"}, 404),
        ({"adapter": "/etc/passwd"}, 404),
        ({"adapter": "nobody"}, 404),
        ({"adapter": "a", "lora_path": "/tmp/x"}, 400),
        ({"adapter": 7}, 400),
        ({}, 400),
        ({"adapter": "a" * 101}, 400),
    ],
)
def test_clients_name_adapters_and_never_paths(site: Site, body: dict[str, Any], status: int) -> None:
    for action in ("load", "unload", "promote", "rollback"):
        assert post(f"{site.url}/admin/adapters/{action}", body)[0] in (status, 422)


def test_vllms_own_doors_are_shut(site: Site) -> None:
    for path in ("/v1/load_lora_adapter", "/adapters", "/invocations", "/pause", "/inference/v1/generate"):
        assert post(site.url + path, {"model": "tiny", "prompt": "x", "lora_name": "x", "lora_path": "/x"})[0] == 404
    too_long = post(f"{site.url}/v1/completions", {"model": "a", "prompt": [1] * 3000, "max_tokens": 1})
    assert too_long[0] == 400
    assert "2048" in too_long[1]["error"]["message"]


def test_a_known_version_cannot_be_removed(site: Site) -> None:
    with pytest.raises(AdapterError, match="knows it"):
        site.registry.remove("b")


def test_the_openai_client_works_unchanged(site: Site) -> None:
    from openai import NotFoundError, OpenAI

    with OpenAI(base_url=f"{site.url}/v1", api_key="none") as client:
        cards = {card.id: card for card in client.models.list()}
        assert {"tiny", "a", "b", site.ids["a1"]} <= set(cards)
        assert cards["a"].model_extra is not None
        assert cards["a"].model_extra["root"] == site.ids["a1"]
        chat: Any = {"model": "a", "messages": [{"role": "user", "content": "012"}], "max_tokens": 8, "temperature": 0}
        whole = client.chat.completions.create(**chat)
        assert whole.model == site.ids["a1"]
        pieces = list(client.chat.completions.create(**chat, stream=True))
        assert {piece.model for piece in pieces} == {site.ids["a1"]}
        streamed = "".join(piece.choices[0].delta.content or "" for piece in pieces)
        assert streamed == whole.choices[0].message.content
        lines = client.completions.create(model="tiny", prompt=["0", "1"], max_tokens=4, temperature=0)
        assert [choice.index for choice in lines.choices] == [0, 1]
        with pytest.raises(NotFoundError, match="known: tiny, a"):
            client.completions.create(model="nope", prompt="0")


def test_figures_per_adapter_are_published(site: Site) -> None:
    ask(site.url, "b", PROMPTS[0])
    with urllib.request.urlopen(f"{site.url}/metrics", timeout=30) as reply:
        text = reply.read().decode()
    model = site.ids["b1"]
    assert f'arc_bench_requests_total{{model="{model}",status="200"}}' in text
    assert f'arc_bench_tokens_total{{kind="completion",model="{model}"}}' in text
    assert "vllm:num_requests_running" in text


def test_a_wrong_option_shows_the_log_within_seconds(site: Site, tmp_path: Path) -> None:
    process, server = start(ServeConfig(site.model, extra=("--no-such-option",)), None, tmp_path / "log", owned=True)
    with pytest.raises(ServerError, match="no-such-option"):
        wait_until_ready(process, server, seconds=300)
    stop(process.pid, 0, process)


LONG_PROMPT = [Stream("long", j).below(250) for j in range(400)]


def test_kill_restart_restore_and_drain(site: Site, tmp_path: Path) -> None:
    """Last in this file: it kills the shared server and starts another with the command, which splits long prompts."""
    whole = ask(site.url, "b", LONG_PROMPT, temperature=1.0, seed=7)[1]
    admin.promote(site.url, site.ids["a2"])
    os.killpg(site.server.pid, signal.SIGKILL)
    with pytest.raises(ServerError):
        admin.list_adapters(site.url)
    root = str(site.registry.root)
    bench = [sys.executable, "-m", "harness.cli", "serve", "--adapters", root]
    chunks = ["--", "--enable-chunked-prefill", "--max-num-batched-tokens", "128"]
    options = ["--detach", "--dtype", "float32", "--log", str(tmp_path / "log")]
    started = subprocess.run([*bench, *options, str(site.model), *chunks], capture_output=True, text=True, check=False)
    assert started.returncode == 0, started.stderr
    url = next(word for word in started.stderr.split() if word.startswith("http://"))
    try:
        live = {row["name"]: row["live"] for row in admin.list_adapters(url)["adapters"]}
        assert live == {"a": site.ids["a2"], "b": site.ids["b1"], "c": site.ids["c1"]}
        for model, name in (("a", "a2"), ("b", "b1"), ("tiny", "base")):
            assert ask(url, model, PROMPTS[2])[1] == site.expected[name][2]
        # A prompt in chunks draws the very sample of a prompt in one piece, and does not kill the engine.
        assert ask(url, "b", LONG_PROMPT, temperature=1.0, seed=7)[1] == whole
        with ThreadPoolExecutor(1) as thread:
            slow = thread.submit(ask, url, "a", PROMPTS[3], max_tokens=1500)
            while not any(v.get("requests") for row in admin.list_adapters(url)["adapters"] for v in row["versions"]):
                assert not slow.done()
            server = psutil.Process(_pid(site.registry.root))
            family = [server, *server.children(recursive=True)]
            subprocess.run([*bench, "--stop"], check=True, timeout=120)
            # The request in flight was answered in full before the server went.
            assert slow.result()[0] == site.ids["a2"]
            assert slow.result()[1][:TOKENS] == site.expected["a2"][3]
        assert not psutil.wait_procs(family, timeout=20)[1]
    finally:
        subprocess.run([*bench, "--stop"], check=False, capture_output=True, timeout=120)
    assert site.registry.remove("b") == [site.ids["b1"]]


def _pid(root: Path) -> int:
    with file_lock(root / ".lock"):
        (lease,) = running_servers(root)
    return lease.pid

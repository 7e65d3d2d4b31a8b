"""A server's life: two engines behind one address, a second server beside it, a kill, a restart and a shutdown.

Starting vLLM is slow, so one fixture runs all of it and records the results; each test checks one subject.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import psutil
import pytest

from harness.core.errors import ArcBenchError, ServerError
from harness.core.random_stream import Stream
from serve.client import admin
from serve.client.many_servers import change_all_servers
from serve.registry.base_model import BaseModel
from serve.registry.leases import file_lock, running_servers
from serve.registry.store import Registry
from tests.serving.conftest import Site, own_threads
from tests.serving.load import Outcome, swap_under_load
from tests.serving.world import BASE, PROMPTS, World, ask, figure, post
from tests.support.models.tiny_models import make_lora
from tests.support.vllm.dtypes import SERVE_WORDS, is_exact

pytestmark = pytest.mark.slow

IN_FLIGHT, LONG = 24, 600
"""Requests in flight when a server is stopped, a third of them streamed, and the least tokens of each."""
LONG_PROMPT = [Stream("long", j).below(250) for j in range(400)]
BENCH = [sys.executable, "-m", "harness.cli", "serve"]
Live = dict[str, str | None]


@dataclass(frozen=True)
class Engines:
    """Results of two engines behind one address."""

    log: str
    swaps: Outcome
    answered: list[float]
    """Requests that each engine answered."""


@dataclass(frozen=True)
class Beside:
    """Live versions on two servers after ``e`` was promoted on both, and after one of them refused a promotion."""

    agreed: list[Live]
    refusal: str
    after: list[Live]
    left_loaded: list[str]


@dataclass(frozen=True)
class Restarted:
    """Answers of a server after its predecessor was killed, and its shutdown with requests in flight."""

    dead: str
    live: Live
    answers: list[tuple[str, int, list[int]]]
    one_piece: list[int]
    in_chunks: list[int]
    states: dict[str, int]
    """Status of /health, /ready and of a new request during the shutdown."""
    still_running: int
    """Requests in flight when /ready returned 503."""
    drained: list[list[tuple[str, list[int]]]]
    """The answers to each client that kept asking."""
    survivors: list[psutil.Process]


def detach(world: World, registry: Registry, log: Path, *options: str) -> str:
    """Start a server with ``bench serve --detach`` and return its address."""
    fixed = ["--detach", "--adapters", str(registry.root), *SERVE_WORDS, "--log", str(log), str(world.model)]
    done = subprocess.run([*BENCH, *fixed, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return next(word for word in done.stderr.split() if word.startswith("http://"))


def stop(registry: Registry) -> None:
    subprocess.run([*BENCH, "--stop", "--adapters", str(registry.root)], check=False, capture_output=True, timeout=300)


def live_on(url: str) -> Live:
    return {row["name"]: row["live"] for row in admin.list_adapters(url)["adapters"]}


def leader(registry: Registry) -> psutil.Process:
    """Return the server's process, from its lease."""
    with file_lock(registry.root / ".lock"):
        (lease,) = running_servers(registry.root)
    return psutil.Process(lease.pid)


def status_of(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=60) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        return error.code


@dataclass(frozen=True)
class Life:
    engines: Engines
    beside: Beside
    restarted: Restarted


@pytest.fixture(scope="module")
def life(shared_site: Site, world: World, tmp_path_factory: pytest.TempPathFactory) -> Life:
    root = tmp_path_factory.mktemp("life")
    registry = Registry(root / "adapters")
    world.publish(registry)
    for name in ("a1", "b1", "c1", "d1"):
        registry.set_live(name[0], world.ids[name].partition("@")[2])
    two = ["--data-parallel-size", "2", "--max-lora-rank", "8", "--max-loras", "2", "--kv-cache-gib", "0.25"]
    try:
        with own_threads():
            url = detach(world, registry, root / "first.log", *two)
        engines = two_engines(world, url, root / "first.log")
        beside = beside_another(shared_site, registry, url, root)
        world.set_live(url, "a2")
        one_piece = ask(url, "b", LONG_PROMPT, temperature=1.0, seed=7)[1]
        os.killpg(leader(registry).pid, signal.SIGKILL)
        with pytest.raises(ServerError) as dead:
            admin.list_adapters(url)
        restarted = killed_and_restarted(world, registry, root / "second.log", str(dead.value), one_piece)
    finally:
        stop(registry)
    return Life(engines, beside, restarted)


def two_engines(world: World, url: str, log: Path) -> Engines:
    def answered() -> list[float]:
        return [figure(url, "vllm:request_success_total", f'engine="{i}"') for i in range(2)]

    before = answered()
    outcome = swap_under_load(world, url, 300, 16)
    after = answered()
    return Engines(log.read_text(), outcome, [y - x for x, y in zip(before, after, strict=True)])


def beside_another(site: Site, registry: Registry, url: str, root: Path) -> Beside:
    """Promote a version that fits both servers (rank 8), then one that only the shared server accepts (rank 16)."""
    base, urls = BaseModel.open(site.world.model), [site.url, url]
    ids = {}
    for rank in (8, 16):
        folder = make_lora(root / f"e{rank}", site.world.model, rank, rank=rank)
        ids[rank] = registry.add("e", folder, base).id
        site.registry.add("e", folder, base)
    change_all_servers("promote", ids[8], urls)
    agreed = [live_on(one) for one in urls]
    with pytest.raises(ArcBenchError) as refusal:
        change_all_servers("promote", ids[16], urls)
    after = [live_on(one) for one in urls]
    rows = [row for adapter in admin.list_adapters(site.url)["adapters"] for row in adapter["versions"]]
    left = [row["id"] for row in rows if row["state"] == "loaded" and row["id"] == ids[16]]
    change_all_servers("unload", "e", urls)
    site.registry.remove("e")
    return Beside(agreed, str(refusal.value), after, left)


def killed_and_restarted(world: World, registry: Registry, log: Path, dead: str, one_piece: list[int]) -> Restarted:
    """Start a server that splits long prompts, and stop it with many requests in flight."""
    options = ["--shutdown-seconds", "240", "--", "--enable-chunked-prefill", "--max-num-batched-tokens", "128"]
    url = detach(world, registry, log, *options)
    live = live_on(url)
    answers = [(*ask(url, model, PROMPTS[2]), 2) for model in ("a", "b", BASE)]
    in_chunks = ask(url, "b", LONG_PROMPT, temperature=1.0, seed=7)[1]
    server = leader(registry)
    family = [server, *server.children(recursive=True)]
    with ThreadPoolExecutor(IN_FLIGHT + 1) as threads:
        fallen = Event()
        asked = [threads.submit(keep_asking, url, i, fallen) for i in range(IN_FLIGHT)]
        while sum(row.get("requests", 0) for a in admin.list_adapters(url)["adapters"] for row in a["versions"]) < 16:
            assert not any(one.done() for one in asked)
        stopped = threads.submit(stop, registry)
        while status_of(f"{url}/ready") == 200:
            assert not stopped.done()
        fallen.set()
        still_running = sum(not one.done() for one in asked)
        states = {path: status_of(url + path) for path in ("/health", "/ready")}
        states["new"] = post(f"{url}/v1/completions", {"model": BASE, "prompt": "x"})[0]
        drained = [one.result() for one in asked]
        stopped.result()
    _, survivors = psutil.wait_procs(family, timeout=30)
    outcomes = [(model, at, tokens) for model, tokens, at in answers]
    return Restarted(dead, live, outcomes, one_piece, in_chunks, states, still_running, drained, survivors)


def keep_asking(url: str, i: int, fallen: Event) -> list[tuple[str, list[int]]]:
    """Send one long request after another until ``fallen`` is set or the server answers 503."""
    received = []
    while not fallen.is_set() and (answer := ask_long(url, i)) is not None:
        received.append(answer)
    return received


def ask_long(url: str, i: int) -> tuple[str, list[int]] | None:
    """Return the version that answered client ``i`` and its token ids, every third client by a stream; None for 503."""
    body = {"model": "abcd"[i % 4], "prompt": PROMPTS[i % len(PROMPTS)], "max_tokens": LONG + 10 * i, "temperature": 0}
    body |= {"ignore_eos": True, "return_token_ids": True, "stream": i % 3 == 0}
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/completions", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=600) as reply:
            lines = [line.removeprefix(b"data: ").strip() for line in reply if line.strip()]
    except urllib.error.HTTPError as error:
        if error.code == 503:
            return None
        raise
    assert (lines[-1] == b"[DONE]") == body["stream"]
    pieces = [json.loads(line) for line in lines if line != b"[DONE]"]
    return pieces[0]["model"], [token for piece in pieces for token in piece["choices"][0]["token_ids"] or ()]


def test_adapters_reach_both_engines(life: Life, world: World) -> None:
    assert life.engines.swaps.wrong == []
    assert {BASE, *(world.ids[name] for name in ("a1", "a2", "b1", "b2", "d1"))} == set(life.engines.swaps.by_model)
    assert min(life.engines.answered) > 50


def test_each_engine_has_cores_of_its_own(life: Life) -> None:
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 8:
        cores = cores[:-1]  # one is left to the API process
    half = len(cores) // 2
    for chosen in (cores[:half], cores[half:]):
        assert f"core ids={chosen}" in life.engines.log


def test_a_promotion_on_two_servers_moves_both_or_none(life: Life) -> None:
    first = life.beside.agreed[0]["e"]
    assert first is not None
    assert [live["e"] for live in (*life.beside.agreed, *life.beside.after)] == [first] * 4
    assert "--max-lora-rank 8; no name was moved on any server" in life.beside.refusal
    assert life.beside.left_loaded == []


def test_a_killed_server_is_restored(life: Life, world: World) -> None:
    assert "is it running" in life.restarted.dead
    expected = {"a": "a2", "b": "b1", "c": "c1", "d": "d1"}
    assert {name: live for name, live in life.restarted.live.items() if name != "e"} == {
        name: world.ids[version] for name, version in expected.items()
    }
    assert [model for model, *_ in life.restarted.answers] == [world.ids["a2"], world.ids["b1"], BASE]
    assert world.wrong(life.restarted.answers) == []


def test_a_prompt_in_chunks_draws_the_sample_of_one_in_one_piece(life: Life) -> None:
    assert life.restarted.in_chunks == life.restarted.one_piece or not is_exact()


def test_a_stopping_server_finishes_its_requests_and_leaves_no_process(life: Life, world: World) -> None:
    assert life.restarted.states == {"/health": 200, "/ready": 503, "new": 503}
    assert life.restarted.still_running >= 16
    expected = {"a": "a2", "b": "b1", "c": "c1", "d": "d1"}
    assert len(life.restarted.drained) == IN_FLIGHT
    for i, answers in enumerate(life.restarted.drained):
        assert answers
        for model, tokens in answers:
            assert model == world.ids[expected["abcd"[i % 4]]]
            assert len(tokens) == LONG + 10 * i
            assert world.is_right(model, i % len(PROMPTS), tokens)
    assert life.restarted.survivors == []

"""Every model gives its own answer, whatever shares its batch and whatever is cached."""

from __future__ import annotations

import urllib.request
from concurrent.futures import ThreadPoolExecutor

import orjson
import pytest

from harness.core.random_stream import Stream
from serve.client import admin
from serve.launch.machine import detect_machine
from tests.serving.conftest import Site
from tests.serving.world import BASE, PROMPTS, TOKENS, ask, figure, get_text, is_answer, post
from tests.support.models.tiny_models import greedy_tokens
from tests.support.vllm.dtypes import is_exact

pytestmark = pytest.mark.slow


def test_base_and_adapters_answer_as_peft_does(site: Site) -> None:
    a1 = site.world.ids["a1"]
    for model, version in ((BASE, BASE), ("a", a1), ("b", site.world.ids["b1"]), (a1, a1)):
        for at, prompt in enumerate(PROMPTS):
            answered, tokens = ask(site.url, model, prompt)
            assert answered == version
            assert site.world.is_right(version, at, tokens)


def test_base_requests_beside_adapters_use_the_base(site: Site) -> None:
    work = [(model, at) for at in range(len(PROMPTS)) for model in (BASE, "a", "b", BASE)]
    with ThreadPoolExecutor(32) as threads:
        answers = list(threads.map(lambda item: ask(site.url, item[0], PROMPTS[item[1]]), work))
    assert [model.partition("@")[0] for model, _ in answers] == [model for model, _ in work]
    assert site.world.wrong([(model, at, ids) for (model, ids), (_, at) in zip(answers, work, strict=True)]) == []


def test_a_seed_decides_the_sample(site: Site) -> None:
    def sample(seed: int) -> list[int]:
        return ask(site.url, "a", PROMPTS[0], temperature=1.0, seed=seed)[1]

    # In 16 bits a sample also depends on what shares its batch.
    with ThreadPoolExecutor(8 if is_exact() else 1) as threads:
        draws = list(threads.map(sample, [1, 2, 1, 2, 3, 1]))
    assert draws[0] == draws[2] == draws[5]
    assert draws[1] == draws[3]
    assert len({tuple(draw) for draw in draws}) == 3


def test_cached_prompts_never_answer_for_another_version(site: Site) -> None:
    """Prompts of several cache blocks are cached; then the name is switched to other weights and back."""
    prompts = [[Stream("cached", i, j).below(250) for j in range(300)] for i in range(3)]
    world = site.world
    expected = {name: greedy_tokens(world.model, world.folders[name], prompts, TOKENS) for name in ("a1", "a2")}
    assert all(one != two for one, two in zip(expected["a1"], expected["a2"], strict=True))
    before = figure(site.url, "vllm:prefix_cache_hits_total")

    def check(name: str) -> None:
        for _ in range(2):
            for at, prompt in enumerate(prompts):
                answered, tokens = ask(site.url, "a", prompt)
                assert answered == world.ids[name]
                assert is_answer(tokens, name, {one: known[at] for one, known in expected.items()})

    for _ in range(2):
        check("a1")
        admin.promote(site.url, world.ids["a2"])
        check("a2")
        admin.unload(site.url, "a")
        admin.load(site.url, world.ids["a1"])
    check("a1")
    assert figure(site.url, "vllm:prefix_cache_hits_total") > before + 3 * 256


@pytest.mark.parametrize(
    ("route", "asked"),
    [("completions", {"prompt": "x"}), ("chat/completions", {"messages": [{"role": "user", "content": "x"}]})],
)
def test_answers_carry_the_id_of_their_request(site: Site, route: str, asked: dict[str, object]) -> None:
    """The harness recognises an answer to another request by it (harness/client/http/http_client.py)."""
    body = orjson.dumps({"model": "a", "max_tokens": 1, **asked})
    head = {"Content-Type": "application/json", "X-Request-Id": "some-name-7-"}
    with urllib.request.urlopen(urllib.request.Request(f"{site.url}/v1/{route}", body, head), timeout=120) as reply:
        assert "some-name-7-" in orjson.loads(reply.read())["id"]


def test_metrics_per_adapter_are_published(site: Site) -> None:
    def seen() -> dict[str, float]:
        model = f'model="{site.world.ids["b1"]}"'
        return {
            "requests": figure(site.url, "arc_bench_requests_total", model, 'status="200"'),
            "refused": figure(site.url, "arc_bench_requests_total", model, 'status="400"'),
            "failures": figure(site.url, "arc_bench_request_failures_total", model),
            "prompt": figure(site.url, "arc_bench_tokens_total", model, 'kind="prompt"'),
            "completion": figure(site.url, "arc_bench_tokens_total", model, 'kind="completion"'),
            "waits": figure(site.url, "arc_bench_queue_seconds_count", model),
            "swaps": figure(site.url, "arc_bench_swaps_total", 'name="b"'),
        }

    before = seen()
    ask(site.url, "b", PROMPTS[0])
    body = {"model": "b", "prompt": PROMPTS[1], "max_tokens": 5, "ignore_eos": True, "stream": True}
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(stream, f"{site.url}/v1/completions", body).result().count("data: {") >= 1
    assert post(f"{site.url}/v1/completions", {"model": "b", "prompt": "x", "max_tokens": -1})[0] == 400
    site.world.set_live(site.url, "b2", "b1")
    after = seen()
    grown = {name: after[name] - before[name] for name in before}
    assert grown == {
        "requests": 2,
        "refused": 1,
        "failures": 1,
        "prompt": len(PROMPTS[0]) + len(PROMPTS[1]),
        "completion": TOKENS + 5,
        "waits": 3,
        "swaps": 2,
    }
    assert "vllm:num_requests_running" in get_text(f"{site.url}/metrics")


def stream(url: str, body: dict[str, object]) -> str:
    """Return the text of a streamed answer."""
    request = urllib.request.Request(url, orjson.dumps(body), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as reply:
        return str(reply.read().decode())


def test_threads_are_bound_to_the_cores_chosen(site: Site) -> None:
    cores = detect_machine().cores
    chosen = cores if len(cores) <= 4 else cores[:-1]
    assert f"core ids={list(chosen)}" in site.server.log.read_text()

"""/arc/score on a real server: equal to PEFT at every prompt length, whatever is cached or in the batch."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from harness.core.random_stream import Stream
from serve.client import admin
from tests.serving.conftest import Site
from tests.serving.world import BASE, PROMPTS, ask, figure, get_text, post
from tests.support.commands import wait_until
from tests.support.models.answer_logprobs import reference
from tests.support.vllm.dtypes import tolerance

pytestmark = pytest.mark.slow

ANSWERS = 4
JSON = {"Content-Type": "application/json"}


def tokens(*key: object, count: int) -> list[int]:
    """Return random token ids."""
    return [Stream("scoring", *map(str, key), j).below(250) for j in range(count)]


def block_size(url: str) -> int:
    """Return the tokens of one block of the server's KV cache."""
    found = re.search(r'vllm:cache_config_info\{[^}]*block_size="(\d+)"', get_text(f"{url}/metrics"))
    assert found is not None
    return int(found[1])


def lengths(block: int) -> list[int]:
    """Return lengths of prompts around multiples of the block size."""
    return [1, 2, block - 1, block, block + 1, 2 * block - 1, 2 * block, 2 * block + 1, 3 * block]


def answers_to(prompt: Sequence[int], block: int) -> list[list[int]]:
    """Return answers of different lengths that share prefixes of more than a block with each other."""
    common = tokens("answer", len(prompt), count=block + 7)
    return [common, [*common[:-1], 3], [*common[: block + 2], 5, 6], common[:3]][:ANSWERS]


def score(url: str, model: str, prompts: Sequence[tuple[list[int], list[list[int]]]]) -> dict[str, Any]:
    """Return the reply to one request."""
    body = {"model": model, "prompts": [{"prompt": prompt, "answers": answers} for prompt, answers in prompts]}
    status, reply = post(f"{url}/arc/score", body)
    assert status == 200, reply
    return reply


def assert_as_peft(
    world_model: Path,
    adapter: Path | None,
    prompts: Sequence[tuple[list[int], list[list[int]]]],
    reply: dict[str, Any],
) -> None:
    """Compare every score of a reply with PEFT's."""
    logprob = reference(world_model, adapter)
    assert len(reply["scores"]) == len(prompts)
    for (prompt, answers), scores in zip(prompts, reply["scores"], strict=True):
        for answer, one in zip(answers, scores, strict=True):
            assert one["n_tokens"] == len(answer)
            assert one["logprob"] == pytest.approx(logprob(prompt, answer), abs=tolerance()), (len(prompt), len(answer))


def adapters_of(site: Site) -> dict[str, Path | None]:
    """Return the base and two adapters by the names of requests."""
    return {BASE: None, "a": site.world.folders["a1"], "b": site.world.folders["b1"]}


def test_the_route_is_listed(site: Site) -> None:
    models = {card["id"]: card["arc_bench"] for card in json.loads(get_text(f"{site.url}/v1/models"))["data"]}
    assert models[BASE]["score"] == models["a"]["score"] == "/arc/score"


def test_scores_equal_peft_at_every_length_with_base_and_adapters_in_one_batch(site: Site) -> None:
    """Three rounds: nothing cached, then prompts and answers cached by the round before, then one prompt a request."""
    block = block_size(site.url)
    prompts = [(prompt, answers_to(prompt, block)) for n in lengths(block) if (prompt := tokens("p", n, count=n))]
    models = adapters_of(site)
    with ThreadPoolExecutor(16) as threads:
        for _ in range(2):
            for model, reply in zip(models, threads.map(lambda m: score(site.url, m, prompts), models), strict=True):
                assert_as_peft(site.world.model, models[model], prompts, reply)
        work = [(model, item) for item in prompts for model in models]
        for (model, item), reply in zip(work, threads.map(lambda w: score(site.url, w[0], [w[1]]), work), strict=True):
            assert_as_peft(site.world.model, models[model], [item], reply)
    assert reply["model"] == site.world.ids["b1"]


def test_a_prompt_is_computed_once_and_answers_always(site: Site) -> None:
    block = block_size(site.url)
    prompts = [(prompt, answers_to(prompt, block)) for n in lengths(block) if (prompt := tokens("once", n, count=n))]
    shared = [(len(prompt) - 1) // block * block for prompt, _ in prompts]
    labels = (f'model="{site.world.ids["a1"]}"', 'kind="prompt"')
    counted = figure(site.url, "arc_bench_tokens_total", *labels)
    first = score(site.url, "a", prompts)["usage"]
    assert figure(site.url, "arc_bench_tokens_total", *labels) == counted + first["prompt_tokens"]
    assert first["prompt_tokens"] == sum(len(prompt) + len(answer) for prompt, some in prompts for answer in some)
    assert first["cached_tokens"] == ANSWERS * sum(shared)
    before = figure(site.url, "vllm:prompt_tokens_total"), figure(site.url, "vllm:prompt_tokens_cached_total")
    assert score(site.url, "a", prompts)["usage"]["cached_tokens"] == ANSWERS * sum(shared)
    after = figure(site.url, "vllm:prompt_tokens_total"), figure(site.url, "vllm:prompt_tokens_cached_total")
    # Beside the answers, a request per prompt made sure that its blocks are cached, and computed one token.
    computed = (after[0] - before[0]) - (after[1] - before[1])
    assert computed == first["prompt_tokens"] - ANSWERS * sum(shared) + sum(map(bool, shared))


def test_answers_that_a_generation_has_cached_are_computed_again(site: Site) -> None:
    """The cache holds the prompt and the generated answer in whole blocks."""
    block = block_size(site.url)

    def check(model: str, length: int) -> None:
        prompt = tokens("generated", model, length, count=length)
        _, answer = ask(site.url, model, prompt, max_tokens=2 * block)
        assert len(answer) == 2 * block
        item = (prompt, [answer, answer[: block + 1], [*answer[:-1], 7]])
        assert_as_peft(site.world.model, adapters_of(site)[model], [item], score(site.url, model, [item]))

    work = [(model, length) for model in adapters_of(site) for length in (block - 1, block, block + 1)]
    with ThreadPoolExecutor(len(work)) as threads:
        list(threads.map(lambda item: check(*item), work))


def test_generation_beside_scoring_is_untouched(site: Site) -> None:
    block = block_size(site.url)
    work = [(model, at) for at in range(len(PROMPTS)) for model in (BASE, "a", "b")]
    items = [([*PROMPTS[at], *tokens("long", at, count=2 * block)], [PROMPTS[at], PROMPTS[at][:4]]) for at in range(8)]
    with ThreadPoolExecutor(32) as threads:
        scored = [(model, threads.submit(score, site.url, model, items)) for model in adapters_of(site)]
        answers = list(threads.map(lambda item: ask(site.url, item[0], PROMPTS[item[1]]), work))
        for model, future in scored:
            assert_as_peft(site.world.model, adapters_of(site)[model], items, future.result())
    assert site.world.wrong([(model, at, ids) for (model, ids), (_, at) in zip(answers, work, strict=True)]) == []


def test_prompt_logprobs_without_the_cap_read_no_cache(site: Site) -> None:
    """vLLM's own route gives complete log-probabilities of a prompt that is cached."""
    prompt = tokens("stock", count=2 * block_size(site.url) + 3)
    score(site.url, "a", [(prompt, [[1, 2]])])
    body = {"model": "a", "prompt": [*prompt, 1, 2], "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
    for more in ({}, {"vllm_xargs": {"arc_bench_cache_cap": -3}}, {"vllm_xargs": {"arc_bench_cache_cap": "x"}}):
        status, reply = post(f"{site.url}/v1/completions", body | more)
        assert status == 200, reply
        rows = reply["choices"][0]["prompt_logprobs"]
        assert len(rows) == len(prompt) + 2
        value = sum(row[str(token)]["logprob"] for row, token in zip(rows[-2:], (1, 2), strict=True))
        expected = reference(site.world.model, site.world.folders["a1"])(prompt, [1, 2])
        assert value == pytest.approx(expected, abs=tolerance())


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no prompts": ({}, "prompts: Field required; the body is"),
    "no answers": ({"prompts": [{"prompt": [1], "answers": []}]}, "prompts[0].answers: List should have at least 1"),
    "an empty prompt": ({"prompts": [{"prompt": [], "answers": [[1]]}]}, "prompts[0].prompt: List should have"),
    "an empty answer": ({"prompts": [{"prompt": [1], "answers": [[1], []]}]}, "prompts[0].answers[1]: List should"),
    "a text": ({"prompts": [{"prompt": "x", "answers": [[1]]}]}, "prompts[0].prompt: Input should be a valid list"),
    "a token that is none": ({"prompts": [{"prompt": [1], "answers": [[1, 320]]}]}, "prompts[0].answers[0][1]: 320 is"),
    "too long": ({"prompts": [{"prompt": [1] * 2040, "answers": [[1] * 8]}]}, "prompts[0].answers[0]: prompt and"),
    "an unknown field": ({"prompts": [{"prompt": [1], "answers": [[1]]}], "n": 2}, "n: Extra inputs are not"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_refused_with_field_and_remedy(site: Site, name: str) -> None:
    body, message = REFUSED[name]
    status, reply = post(f"{site.url}/arc/score", {"model": "a", **body})
    assert status == 400
    assert message in reply["error"]["message"]


def loaded(url: str) -> set[str]:
    """Return the ids of the versions that the server holds."""
    adapters = admin.list_adapters(url)["adapters"]
    return {row["id"] for adapter in adapters for row in adapter["versions"] if row["state"] != "registered"}


def test_a_client_that_leaves_frees_the_engine(site: Site) -> None:
    """Its answers are aborted, its adapter is released, and other requests are answered."""
    prompts = [{"prompt": tokens("left", n, count=1500), "answers": [tokens("a", n, count=300)]} for n in range(200)]
    before = figure(site.url, "vllm:prompt_tokens_total")
    connection = http.client.HTTPConnection(urlsplit(site.url).netloc, timeout=60)
    connection.request("POST", "/arc/score", json.dumps({"model": "b", "prompts": prompts}), JSON)
    wait_until(lambda: figure(site.url, "vllm:prompt_tokens_total") > before)
    connection.close()
    site.world.set_live(site.url, "b2")
    wait_until(lambda: site.world.ids["b1"] not in loaded(site.url))  # it is unloaded once no request uses it
    computed = figure(site.url, "vllm:prompt_tokens_total") - before
    assert 0 < computed < 200 * 1800, "the request had ended before its client left"
    site.world.set_live(site.url, "b1")
    assert site.world.is_right(site.world.ids["b1"], 0, ask(site.url, "b", PROMPTS[0])[1])


def test_the_longest_sequence_is_scored(site: Site) -> None:
    item = (tokens("longest", count=2040), [tokens("end", count=7)])
    assert_as_peft(site.world.model, None, [item], score(site.url, BASE, [item]))
    assert post(f"{site.url}/arc/score", {"model": "nobody", "prompts": [{"prompt": [1], "answers": [[1]]}]})[0] == 404

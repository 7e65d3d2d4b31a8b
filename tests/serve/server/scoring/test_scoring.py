"""Scoring without vLLM: the cap of a cache lookup, what counts as a score, and the limits of requests."""

from __future__ import annotations

import asyncio
import math
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.server.http.http_json import Refusal
from serve.server.http.limits import MAX_SEQUENCES
from serve.server.routes.score_route import attach_score_route, parse_body
from serve.server.scoring.answer_scores import AnswerScorer, PromptAnswers, ScoreError, read_score, unsuitable
from serve.server.scoring.prefix_cap import CACHE_CAP, CappedRequest, cache_cap
from tests.serve.conftest import OpenSite
from tests.support.servers.admin_site import Site

MODEL = SimpleNamespace(max_model_len=64, get_vocab_size=lambda: 100, dtype="torch.float32")
ENGINES = SimpleNamespace(data_parallel_size=1, data_parallel_size_local=1, local_engines_only=False)
CACHE = SimpleNamespace(cache_config=SimpleNamespace(block_size=16), parallel_config=ENGINES)
SCORER = AnswerScorer(SimpleNamespace(model_config=MODEL, vllm_config=CACHE), {})


def vllm_request(tokens: int, extra: object) -> Any:
    """Return what the lookup reads of vLLM's Request."""
    return SimpleNamespace(num_tokens=tokens, sampling_params=SimpleNamespace(extra_args=extra), block_hashes=["h"])


@given(prompt=st.integers(1, 600), answer=st.integers(1, 300), block=st.sampled_from([1, 2, 16, 128]))
def test_the_cap_leaves_every_answer_position_and_one_more_to_compute(prompt: int, answer: int, block: int) -> None:
    """The first answer token's log-probability is computed at the prompt's last position."""
    capped = CappedRequest(vllm_request(prompt + answer, None), prompt - 1)
    hit = (capped.num_tokens - 1) // block * block  # as vLLM looks up whole blocks, the last token excluded
    assert 0 <= hit <= prompt - 1
    assert hit > prompt - 1 - block, "no whole block of the prompt is computed twice"


@given(tokens=st.integers(1, 600), cap=st.integers(0, 10_000))
def test_a_cap_beyond_the_request_changes_nothing(tokens: int, cap: int) -> None:
    capped = CappedRequest(vllm_request(tokens, None), cap)
    assert capped.num_tokens == min(tokens, cap + 1)


def test_a_capped_request_is_the_request_in_all_else() -> None:
    request = vllm_request(9, None)
    capped = CappedRequest(request, 3)
    assert capped.block_hashes is request.block_hashes
    capped.shared_prefix_boundary = 5
    assert request.shared_prefix_boundary == 5
    with pytest.raises(AttributeError):
        capped.missing  # noqa: B018


@pytest.mark.parametrize(
    "extra", [None, {}, {CACHE_CAP: -1}, {CACHE_CAP: "3"}, {CACHE_CAP: 2.0}, {CACHE_CAP: True}, {CACHE_CAP: [1]}, "x"]
)
def test_requests_without_a_valid_cap_have_none(extra: object) -> None:
    assert cache_cap(vllm_request(9, extra)) is None
    assert cache_cap(SimpleNamespace(sampling_params=None)) is None  # pooling


def test_a_valid_cap_is_read() -> None:
    assert cache_cap(vllm_request(9, {CACHE_CAP: 0, "other": 1})) == 0


def rows(tokens: list[int], values: list[float]) -> list[dict[int, Any] | None]:
    """Return vLLM's prompt_logprobs."""
    return [None, *({t: SimpleNamespace(logprob=v)} for t, v in zip(tokens[1:], values[1:], strict=True))]


def output(tokens: list[int], values: list[float], cached: int | None = 0) -> Any:
    return SimpleNamespace(num_cached_tokens=cached, prompt_logprobs=rows(tokens, values))


def test_only_the_answers_rows_are_read() -> None:
    """Rows of cached positions hold anything, or are absent."""
    tokens, values = [5, 6, 7, 8, 9], [0.0, math.nan, 99.0, -1.5, -2.0]
    for kept in (tokens, tokens[2:]):
        score = read_score(output(kept, values[-len(kept) :], cached=2), 3, [8, 9])
        assert (score.logprob, score.n_tokens, score.n_cached) == (-3.5, 2, 2)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (output([5, 6, 7], [0, -1, -2], cached=2), "2 tokens came from the cache"),
        (output([5, 6, 7], [0, -1, -2], cached=None), "no log-probabilities"),
        (SimpleNamespace(num_cached_tokens=0, prompt_logprobs=None), "no log-probabilities"),
        (output([7], [0]), "1 positions for an answer of 1"),
        (output([5, 6, 8], [0, -1, -2]), "another token than the answer's at its position 0"),
        (output([5, 6, 7], [0, -1, math.nan]), "log-probability nan"),
        (output([5, 6, 7], [0, -1, -math.inf]), "log-probability -inf"),
        (output([5, 6, 7], [0, -1, 0.5]), "log-probability 0.5"),
    ],
)
def test_what_was_not_computed_is_no_score(bad: Any, message: str) -> None:
    with pytest.raises(ScoreError, match=message):
        read_score(bad, 2, [7])


def config(**changes: object) -> Any:
    cache = SimpleNamespace(enable_prefix_caching=True, kv_sharing_fast_prefill=False)
    vllm = SimpleNamespace(cache_config=cache, kv_transfer_config=None, model_config=None)
    vllm.model_config = SimpleNamespace(logprobs_mode="raw_logprobs")
    for name, value in changes.items():
        for part in (vllm, cache, vllm.model_config):
            if hasattr(part, name):
                setattr(part, name, value)
    return vllm


def test_servers_that_would_score_wrongly_say_why() -> None:
    assert unsuitable(config()) is None
    assert "prefix caching" in str(unsuitable(config(enable_prefix_caching=False)))
    assert "KV connector" in str(unsuitable(config(kv_transfer_config=object())))
    assert "raw_logits" in str(unsuitable(config(logprobs_mode="raw_logits")))
    assert "fast-prefill" in str(unsuitable(config(kv_sharing_fast_prefill=True)))


def body(prompts: object) -> dict[str, Any]:
    return {"model": "m", "prompts": prompts}


def test_bodies_at_the_limits_are_accepted() -> None:
    longest = {"prompt": [99] * 60, "answers": [[0] * 3]}
    many = {"prompt": [1], "answers": [[1]] * (MAX_SEQUENCES - 1)}
    assert len(parse_body(body([longest, many]), SCORER).prompts) == 2


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (None, "prompts: Input should be a valid list"),
        ([], "prompts: List should have at least 1 item"),
        ([{"prompt": [1], "answers": [[1]]}, {"prompt": [1]}], r"prompts\[1\].answers: Field required"),
        ([{"prompt": [True], "answers": [[1]]}], r"prompts\[0\].prompt\[0\]: Input should be a valid integer"),
        ([{"prompt": [1.0], "answers": [[1]]}], r"prompts\[0\].prompt\[0\]: Input should be a valid integer"),
        ([{"prompt": [1], "answers": [[1]], "n": 1}], r"prompts\[0\].n: Extra inputs"),
        ([{"prompt": [1, -1], "answers": [[1]]}], r"prompts\[0\].prompt\[1\]: -1 is not a token id .* 0 to 99"),
        ([{"prompt": [1], "answers": [[1], [2, 100]]}], r"prompts\[0\].answers\[1\]\[1\]: 100 is not a token id"),
        ([{"prompt": [1], "answers": [[1 << 70]]}], r"prompts\[0\].answers\[0\]"),
        ([{"prompt": [1] * 61, "answers": [[1, 2], [1] * 3]}], r"answers\[1\]: prompt and answer have 64 .* 63"),
        ([{"prompt": [1], "answers": [[1]] * (MAX_SEQUENCES + 1)}], "prompts: 16385 answers; at most 16384"),
    ],
)
def test_bad_bodies_are_refused_with_their_field(prompts: object, message: str) -> None:
    with pytest.raises(Refusal, match=message) as caught:
        parse_body(body(prompts), SCORER)
    assert caught.value.status == 400


def with_route(site: Site) -> Site:
    """Put the route in front of the app that stands for vLLM."""
    attach_score_route(site.app)
    site.app.router.routes.insert(0, site.app.router.routes.pop())
    return site


def test_the_route_is_absent_where_the_engine_cannot_score(open_site: OpenSite) -> None:
    async def scenario() -> None:
        site = with_route(open_site())
        status, answer = await site.request("POST", "/arc/score", body([{"prompt": [1], "answers": [[1]]}]))
        assert status == 404  # the model
        status, answer = await site.request("POST", "/arc/score", {"model": "toy-base", "prompts": []})
        assert (status, answer["error"]["message"]) == (404, "This server cannot score answers; its log says why")
        models = (await site.request("GET", "/v1/models"))[1]["data"]
        assert [card["arc_bench"]["score"] for card in models] == [None]

    asyncio.run(scenario())


def test_the_route_needs_the_key_and_counts_as_a_model_request(locked: Site) -> None:
    async def scenario() -> None:
        site = with_route(locked)
        site.service.scorer = SCORER
        bad = {"model": "a", "prompts": []}
        assert (await site.request("POST", "/arc/score", bad))[0] == 401
        await site.pool.load("a")
        headers = {"authorization": "Bearer user-key-1"}
        status, answer = await site.request("POST", "/arc/score", bad, **headers)
        assert status == 400
        assert answer["error"]["message"].startswith("prompts: List should have at least 1 item")
        entry = site.pool.loaded[site.registry.find("a").id]
        assert (entry.requests, entry.served) == (0, 1)
        assert (await site.request("GET", "/arc/score", **headers))[0] == 404
        models = (await site.request("GET", "/v1/models", **headers))[1]["data"]
        assert {card["arc_bench"]["score"] for card in models} == {"/arc/score"}
        site.service.draining = True
        assert (await site.request("POST", "/arc/score", bad, **headers))[0] == 503

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("local_only", "numbers"), [(False, [0, 1, 2, 3]), (True, [0, 1])], ids=["internal", "hybrid or external"]
)
def test_the_answers_of_a_prompt_go_to_the_engine_that_has_it_cached(local_only: bool, numbers: list[int]) -> None:
    """Each engine has a prefix cache of its own; prompts take turns."""
    config = SimpleNamespace(data_parallel_size=4, data_parallel_size_local=2, local_engines_only=local_only)
    sent: dict[int, list[int | None]] = {}

    class Client:
        model_config = MODEL
        vllm_config = SimpleNamespace(cache_config=CACHE.cache_config, parallel_config=config)

        async def generate(self, prompt: Any, *_: object, data_parallel_rank: int | None, **__: object) -> Any:
            ids = prompt["prompt_token_ids"]
            sent.setdefault(ids[0], []).append(data_parallel_rank)
            yield output(ids, [-1.0] * len(ids))

    scorer = AnswerScorer(Client(), {})
    prompts = [PromptAnswers([at] * 20, [[1], [2, 3]]) for at in range(8)]
    assert asyncio.run(scorer.score("base", prompts))[7][1].logprob == -2.0
    assert sent == {at: [numbers[at % len(numbers)]] * 3 for at in range(8)}

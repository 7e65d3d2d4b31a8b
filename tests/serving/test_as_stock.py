"""Our server compared with a plain vLLM of the same model and adapters, through the openai client."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from openai import APIStatusError, NotFoundError, OpenAI

from benchmarks.swapping.stock import stock_vllm
from harness.client.http.http_client import Client
from harness.client.protocol.parameters import SamplingParameters
from harness.client.scoring.score_client import ScoreClient
from harness.client.scoring.score_format import PromptAnswers, ScoreMethod, ScoreReply, ScoreRequest
from serve.launch.process import Server
from tests.serving.conftest import Site
from tests.serving.world import BASE, PROMPTS, World, post
from tests.support.models.answer_logprobs import reference
from tests.support.vllm.dtypes import tolerance, vllm_words

pytestmark = pytest.mark.slow

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "012\n"}], "max_tokens": 8, "temperature": 0}
TEXT: dict[str, Any] = {"prompt": "012\n", "max_tokens": 8, "temperature": 0}
COMPLETIONS: dict[str, dict[str, Any]] = {
    "plain": TEXT,
    "several prompts": {**TEXT, "prompt": ["0", "1", "22"]},
    "token ids": {**TEXT, "prompt": PROMPTS[0]},
    "several samples": {**TEXT, "n": 3, "temperature": 1.0, "seed": 7},
    "log-probabilities and echo": {**TEXT, "logprobs": 2, "echo": True},
    "stop strings": {**TEXT, "max_tokens": 40, "stop": ["1", "a"]},
    "token ids asked for": {**TEXT, "extra_body": {"return_token_ids": True, "ignore_eos": True}},
    "structured": {**TEXT, "extra_body": {"structured_outputs": {"regex": "([0-9]{1,3}\n){1,3}"}}},
}
CHATS: dict[str, dict[str, Any]] = {
    "plain": CHAT,
    "several messages": {**CHAT, "messages": [{"role": "system", "content": "s"}, *CHAT["messages"]]},
    "several samples": {**CHAT, "n": 3, "temperature": 1.0, "seed": 7},
    "log-probabilities": {**CHAT, "logprobs": True, "top_logprobs": 2},
    "a bias": {**CHAT, "logit_bias": {"50": 100}},
}
REFUSED: dict[str, dict[str, Any]] = {
    "context too long": {**TEXT, "prompt": [1] * 3000},
    "too many tokens": {**TEXT, "max_tokens": 100_000},
    "negative tokens": {**TEXT, "max_tokens": -1},
    "temperature": {**TEXT, "temperature": -2},
    "a text for a number": {**TEXT, "max_tokens": "many"},
    "no prompt": {"max_tokens": 8, "prompt": None},
    "empty prompt": {**TEXT, "prompt": []},
    "a token that is none": {**TEXT, "prompt": [10**6]},
    "a regex that is none": {**TEXT, "extra_body": {"structured_outputs": {"regex": "(["}}},
}


@pytest.fixture(scope="module")
def stock(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    adapters = {name: world.folders[f"{name}1"] for name in "ab"}
    options = [*vllm_words(with_adapters=True), "--max-model-len", "2048", "--max-loras", "2", "--max-lora-rank", "16"]
    options += ["--kv-cache-memory-bytes", str(256 << 20)]
    with stock_vllm(world.model, adapters, tmp_path_factory.mktemp("stock") / "log", options) as server:
        yield server


@pytest.fixture
def clients(site: Site, stock: Server) -> Iterator[tuple[OpenAI, OpenAI]]:
    """Clients of our server and of plain vLLM."""
    with (
        OpenAI(base_url=f"{site.url}/v1", api_key="none", max_retries=0) as ours,
        OpenAI(base_url=f"{stock.url}/v1", api_key="none", max_retries=0) as plain,
    ):
        yield ours, plain


def shown(answer: Any) -> dict[str, Any]:
    """Return an answer without its id and times, and without the version in ``model``."""
    data: dict[str, Any] = answer.model_dump()
    for name in ("id", "created", "system_fingerprint"):
        data.pop(name, None)
    return {**data, "model": data["model"].partition("@")[0]}


def alike(one: Any, two: Any) -> bool:
    """Return whether two answers are equal, with log-probabilities up to the order of sums."""
    if isinstance(one, float) and isinstance(two, float):
        return abs(one - two) < tolerance()
    if isinstance(one, dict) and isinstance(two, dict):
        return one.keys() == two.keys() and all(alike(one[key], two[key]) for key in one)
    if isinstance(one, list) and isinstance(two, list):
        return len(one) == len(two) and all(map(alike, one, two))
    return bool(one == two)


def joined(pieces: list[Any]) -> tuple[list[dict[str, Any]], dict[int, str], list[str | None]]:
    """Return a stream's usage and kinds of chunks, the text of each choice, and why each ended.

    How many tokens one chunk carries depends on how busy the machine is.
    """
    kinds: list[dict[str, Any]] = []
    texts: dict[int, str] = {}
    ends: dict[int, str | None] = {}
    for piece in map(shown, pieces):
        for choice in piece.pop("choices"):
            delta = choice.get("delta") or {"content": choice.get("text")}
            texts[choice["index"]] = texts.get(choice["index"], "") + (delta["content"] or "")
            ends[choice["index"]] = choice["finish_reason"]
        if piece not in kinds:
            kinds.append(piece)
    return kinds, texts, [ends[index] for index in sorted(ends)]


@pytest.mark.parametrize("model", [BASE, "a"])
@pytest.mark.parametrize("case", COMPLETIONS)
def test_completions_are_the_same(clients: tuple[OpenAI, OpenAI], model: str, case: str) -> None:
    ours, plain = (client.completions.create(model=model, **COMPLETIONS[case]) for client in clients)
    assert ours.choices
    assert alike(shown(ours), shown(plain)), (ours, plain)


@pytest.mark.parametrize("model", [BASE, "a"])
@pytest.mark.parametrize("case", CHATS)
def test_chats_are_the_same(clients: tuple[OpenAI, OpenAI], model: str, case: str) -> None:
    ours, plain = (client.chat.completions.create(model=model, **CHATS[case]) for client in clients)
    assert ours.choices
    assert alike(shown(ours), shown(plain)), (ours, plain)


@pytest.mark.parametrize("usage", [False, True])
@pytest.mark.parametrize("model", [BASE, "a"])
def test_streams_are_the_same(clients: tuple[OpenAI, OpenAI], site: Site, model: str, usage: bool) -> None:
    more: dict[str, Any] = {"stream": True, "model": model}
    if usage:
        more["stream_options"] = {"include_usage": True}
    for case in ({"n": 2, "temperature": 1.0, "seed": 3}, {}):
        texts = [list(client.completions.create(**{**TEXT, **more, **case})) for client in clients]
        chats = [list(client.chat.completions.create(**{**CHAT, **more, **case})) for client in clients]
        assert joined(texts[0]) == joined(texts[1])
        assert joined(chats[0]) == joined(chats[1])
        answered = site.world.ids["a1"] if model == "a" else BASE
        assert {piece.model for piece in (*texts[0], *chats[0])} == {answered}


def test_scores_are_the_same_by_every_method(site: Site, stock: Server) -> None:
    """Our route, and both ways to score with plain vLLM, equal PEFT."""
    prompts = [PromptAnswers(PROMPTS[0] * 10, [PROMPTS[1], PROMPTS[2][:3]]), PromptAnswers(PROMPTS[3], [PROMPTS[4]])]
    folders = {BASE: None, "a": site.world.folders["a1"]}

    async def scored(url: str, model: str, method: ScoreMethod | None) -> tuple[ScoreReply, list[str]]:
        notices: list[str] = []
        async with Client(url, None, 300.0, SamplingParameters(), notices.append) as client:
            await client.models()
            scorer = ScoreClient(client)
            scorer.method = method
            return await scorer.score(ScoreRequest(model, prompts)), notices

    ways: list[tuple[str, ScoreMethod | None, str]] = [
        (site.url, None, "arc_score"), (stock.url, None, "prompt_logprobs"), (stock.url, "echo", "echo"),
    ]  # fmt: skip
    for model, folder in folders.items():
        expected = [reference(site.world.model, folder)(item.prompt, one) for item in prompts for one in item.answers]
        for url, chosen, method in ways:
            reply, notices = asyncio.run(scored(url, model, chosen))
            assert reply.method == method
            assert len(notices) == (chosen is None)
            assert [one.logprob for row in reply.scores for one in row] == pytest.approx(expected, abs=tolerance())


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_are_the_same(clients: tuple[OpenAI, OpenAI], case: str) -> None:
    refusals = []
    for client in clients:
        with pytest.raises(APIStatusError) as caught:
            client.completions.create(model="a", **REFUSED[case])
        refusals.append((type(caught.value), caught.value.status_code, caught.value.body))
    assert refusals[0] == refusals[1]
    assert refusals[0][1] == 400


def test_an_unknown_model_is_not_found(clients: tuple[OpenAI, OpenAI]) -> None:
    for client in clients:
        with pytest.raises(NotFoundError) as caught:
            client.chat.completions.create(model="nope", **CHAT)
        body = caught.value.body
        assert isinstance(body, dict)
        assert (body["type"], body["code"]) == ("NotFoundError", 404)
        assert "`nope`" in body["message"] or "'nope'" in body["message"]


def test_models_are_listed(clients: tuple[OpenAI, OpenAI], site: Site) -> None:
    ours, plain = ({card.id: card.model_dump() for card in client.models.list()} for client in clients)
    assert set(plain) == {BASE, "a", "b"}
    assert set(plain) | {site.world.ids["a1"]} <= set(ours)
    for name, card in plain.items():
        assert {key: ours[name][key] for key in ("object", "parent", "max_model_len")} == {
            key: card[key] for key in ("object", "parent", "max_model_len")
        } | ({} if name == BASE else {"max_model_len": 2048})
    assert ours["a"]["root"] == site.world.ids["a1"]


def test_log_probabilities_equal_those_of_plain_vllm(site: Site, stock: Server) -> None:
    """Our grouped products are compared with vLLM's copies per token, with 16 requests of two adapters in flight."""

    def scores(url: str, work: tuple[str, list[int]]) -> list[float]:
        model, prompt = work
        body = {"model": model, "prompt": prompt, "max_tokens": 8, "temperature": 0, "ignore_eos": True}
        status, answer = post(f"{url}/v1/completions", body | {"prompt_logprobs": 0, "logprobs": 0})
        assert status == 200, answer
        choice = answer["choices"][0]
        pairs = zip(choice["prompt_logprobs"][1:], prompt[1:], strict=True)
        return [*(entry[str(token)]["logprob"] for entry, token in pairs), *choice["logprobs"]["token_logprobs"]]

    work = [(model, prompt) for prompt in PROMPTS for model in ("a", "b")]
    with ThreadPoolExecutor(16) as threads:
        ours, plain = (
            list(threads.map(lambda item, url=url: scores(url, item), work)) for url in (site.url, stock.url)
        )
    differences = [abs(x - y) for one, two in zip(ours, plain, strict=True) for x, y in zip(one, two, strict=True)]
    apart = [abs(x - y) for one, two in zip(ours[::2], ours[1::2], strict=True) for x, y in zip(one, two, strict=True)]
    print(f"{len(differences)} log-probabilities, largest difference {max(differences):.1e} (a to b: {max(apart):.1f})")
    assert max(differences) < tolerance()
    assert max(apart) > 1

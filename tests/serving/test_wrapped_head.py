"""A class whose output layer supports LoRA: adapters on it and on embeddings, and log-probabilities of prompts."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from serve.launch.process import serving
from serve.registry.base_model import BaseModel
from serve.registry.store import Registry
from tests.serving.conftest import own_threads
from tests.serving.test_scoring import assert_as_peft, score
from tests.serving.world import PROMPTS, post
from tests.support.models.tiny_models import make_lora, make_model
from tests.support.vllm.dtypes import SERVE_OPTIONS, tolerance

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")]

TARGETS: dict[str, str | list[str]] = {
    "linear": "all-linear",
    "head": ["q_proj", "up_proj", "lm_head"],
    "both": ["o_proj", "embed_tokens", "lm_head"],
}
"""Target modules by adapter."""
BASE = "tiny"


@dataclass(frozen=True)
class Site:
    """A running server, and what transformers and PEFT compute."""

    url: str
    model: Path
    folders: dict[str, Path]
    """By adapter."""
    expected: dict[str, list[list[float]]]
    """By model, the log-probabilities of each prompt's tokens except the first."""


def through_peft(model: Path, adapter: Path | None) -> list[list[float]]:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    if adapter is not None:
        network = PeftModel.from_pretrained(network, str(adapter))
    logprobs = []
    with torch.no_grad():
        for prompt in PROMPTS:
            ids = torch.tensor([prompt])
            logs = torch.log_softmax(network(input_ids=ids).logits[0, :-1], -1)
            logprobs.append(logs.gather(1, ids[0, 1:, None])[:, 0].tolist())
    return logprobs


@pytest.fixture(scope="module", params=[False, True], ids=["own-head", "tied-head"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    root = tmp_path_factory.mktemp("wrapped")
    model = make_model(root / BASE, family="qwen3" if not request.param else "llama", tied=request.param)
    folders = {
        name: make_lora(root / name, model, seed, targets=targets)
        for seed, (name, targets) in enumerate(TARGETS.items())
    }
    registry = Registry(root / "adapters")
    for name, folder in folders.items():
        registry.add(name, folder, BaseModel.open(model))
        registry.set_live(name, registry.find(name).version)
    expected = {BASE: through_peft(model, None)} | {name: through_peft(model, path) for name, path in folders.items()}
    options: dict[str, Any] = {**SERVE_OPTIONS, "max_loras": 3, "max_lora_rank": 8, "kv_cache_gib": 0.5}
    with own_threads(), serving(model, registry.root, log=root / "log", **options) as server:
        yield Site(server.url, model, folders, expected)


def logs_of(site: Site, model: str, numbers: list[int]) -> list[float]:
    """Request several prompts at once; return each one's largest difference from PEFT."""
    body = {"model": model, "prompt": [PROMPTS[n] for n in numbers], "max_tokens": 2, "temperature": 0}
    status, answer = post(f"{site.url}/v1/completions", body | {"prompt_logprobs": 0})
    assert status == 200, answer
    differences = []
    for n, choice in zip(numbers, answer["choices"], strict=True):
        entries = zip(choice["prompt_logprobs"][1:], PROMPTS[n][1:], site.expected[model][n], strict=True)
        differences.append(max(abs(entry[str(token)]["logprob"] - log) for entry, token, log in entries))
    return differences


def test_one_request_with_prompt_logprobs(site: Site) -> None:
    for model in site.expected:
        assert logs_of(site, model, [0])[0] < tolerance(), model


def test_models_differ(site: Site) -> None:
    """The comparison can fail: any two models differ by more than it allows."""
    models = list(site.expected)
    for one, other in ((a, b) for a in models for b in models if a < b):
        pairs = zip(site.expected[one], site.expected[other], strict=True)
        assert min(max(abs(x - y) for x, y in zip(p, q, strict=True)) for p, q in pairs) > 10 * tolerance()


def test_many_at_once_with_ordinary_requests_between(site: Site) -> None:
    """Each prompt gets the log-probabilities of its own adapter, whatever else is in the batch."""

    def ordinary(model: str, n: int) -> int:
        body = {"model": model, "prompt": PROMPTS[n], "max_tokens": 20, "temperature": 0, "ignore_eos": True}
        return post(f"{site.url}/v1/completions", body)[0]

    with ThreadPoolExecutor(24) as pool:
        between = [pool.submit(ordinary, model, n) for n in range(8) for model in site.expected]
        asked = [(m, pool.submit(logs_of, site, m, [n, n + 1, n + 2])) for n in range(8) for m in site.expected]
        for model, future in asked:
            assert max(future.result()) < tolerance(), model
        assert {future.result() for future in between} == {200}


def test_scores_through_the_wrapped_head(site: Site) -> None:
    """All models at once, each with prompts that share a cached prefix."""
    start = [token for prompt in PROMPTS[:8] for token in prompt]
    prompts = [(start + PROMPTS[n], [PROMPTS[n + 1], [*PROMPTS[n + 1][:-1], 9]]) for n in range(8, 12)]
    with ThreadPoolExecutor(8) as pool:
        for model, reply in [(m, pool.submit(score, site.url, m, prompts)) for m in site.expected for _ in "ab"]:
            assert_as_peft(site.model, site.folders.get(model), prompts, reply.result())


def test_a_prompt_in_chunks(site: Site) -> None:
    """The prompt is longer than one step processes, so its logits are computed in parts."""
    long = [token for prompt in PROMPTS * 6 for token in prompt][:1900]
    with ThreadPoolExecutor(8) as pool:
        bodies = [
            {"model": model, "prompt": long, "max_tokens": 1, "prompt_logprobs": 0}
            for model in site.expected
            for _ in "ab"
        ]
        answers = list(pool.map(lambda body: post(f"{site.url}/v1/completions", body), bodies))
    assert [status for status, _ in answers] == [200] * len(bodies)
    assert all(len(answer["choices"][0]["prompt_logprobs"]) == len(long) for _, answer in answers)

"""``--search dfs`` against a real vLLM finds what brute force by transformers finds, over the whole vocabulary."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from harness.client.retry import RetryPolicy
from harness.core.errors import ServerError
from harness.prompts.file_tokenizer import FileTokenizer, eos_token_ids
from harness.runs.folder import RunFolder
from harness.sampling.options import RunOptions
from serve.client import admin
from serve.launch.process import serving
from serve.registry.base_model import BaseModel
from serve.registry.store import Registry
from tests.support.chat_server import TINY_BASE
from tests.support.dtypes import SERVE_OPTIONS, tolerance
from tests.support.enumerated_runs import prompts_of, views
from tests.support.plain_vllm import PlainVllm
from tests.support.sampling_runs import run_options, run_sampling
from tests.support.tiny_models import make_lora

pytestmark = pytest.mark.slow
FAMILIES = ("cross", "recolour", "diagonal", "edge")
BORDER = 1e-4
"""Answers whose log-probability is this close to the threshold are left out of the comparison."""
Distribution = dict[tuple[int, ...], float]


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random adapter of the tiny base."""
    return make_lora(tmp_path_factory.mktemp("adapter") / "lora", TINY_BASE, 1)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, adapter: Path) -> Iterator[str]:
    """The URL of ``bench serve`` with the tiny base and the random adapter, in float32."""
    root = tmp_path_factory.mktemp("served")
    registry = Registry(root / "adapters")
    version = registry.add("random", adapter, BaseModel.open(TINY_BASE)).id
    with serving(TINY_BASE, registry.root, log=root / "log", max_loras=2, **SERVE_OPTIONS) as server:
        admin.load(server.url, version)
        yield server.url


@pytest.fixture(scope="module")
def models(adapter: Path) -> dict[str, Any]:
    """The tiny base, and the base with the adapter, by the names under which they are served."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    def load() -> Any:
        return AutoModelForCausalLM.from_pretrained(TINY_BASE, dtype=torch.float32).eval()

    return {"tiny-base": load(), "random": PeftModel.from_pretrained(load(), str(adapter)).eval()}


def brute_force(model: Any, prompt: tuple[int, ...], min_prob: float, limit: int, stops: list[int]) -> Distribution:
    """Return the log-probability of every answer of up to ``limit`` tokens, end included, with at least ``min_prob``.

    Level by level: all prefixes of one length that are likely enough form a batch.
    """
    import torch

    answers: Distribution = {}
    prefixes, values, threshold = [()], torch.zeros(1, dtype=torch.float64), math.log(min_prob)
    with torch.no_grad():
        output = model(input_ids=torch.tensor([prompt]), use_cache=True)
        for _ in range(limit):
            totals = values[:, None] + output.logits[:, -1].double().log_softmax(-1)
            for prefix, end in zip(prefixes, totals[:, stops].logsumexp(-1).tolist(), strict=True):
                if end >= threshold:
                    answers[prefix] = end
            totals[:, stops] = -math.inf
            rows, tokens = (totals >= threshold).nonzero(as_tuple=True)
            if not len(rows):
                break
            prefixes = [(*prefixes[row], token) for row, token in zip(rows.tolist(), tokens.tolist(), strict=True)]
            values, cache = totals[rows, tokens], output.past_key_values
            cache.reorder_cache(rows)
            output = model(input_ids=tokens[:, None], past_key_values=cache, use_cache=True)
    return answers


def dfs(url: str, out: Path, family: str, min_prob: float, **changes: object) -> RunOptions:
    """Return options for the tiny base with eight views of each of two tasks, in the form in which it was trained."""
    fields: dict[str, object] = {
        "models": ("tiny-base",), "dataset": f"toy/{family}/evaluation#n=2", "n": 8, "search": "dfs",
        "min_prob": min_prob, "max_tokens": 80, "policy": RetryPolicy(), "prompt": None, "encoder": None,
    }  # fmt: skip
    return run_options(url, out, **{**fields, **changes})


def check_exact(run: Path, models: dict[str, Any], min_prob: float, limit: int) -> tuple[int, int]:
    """Assert that the views of a run have the answers of brute force; return the numbers of views and answers."""
    tokenizer, stops = FileTokenizer(TINY_BASE), sorted(eos_token_ids(TINY_BASE))
    lines = [orjson.loads(line) for line in RunFolder(run).predictions_path.read_bytes().splitlines()]
    saved: dict[tuple[str, str, int, int], list[tuple[str, float]]] = {key: [] for key in views(run)}
    for line in lines:
        if "answer_index" in line:
            key = line["model"], line["task_id"], line["test_index"], line["sample_index"]
            saved[key].append((line["text"], line["cumulative_logprob"]))
    total = 0
    for sample, prompt in prompts_of(run):
        exact = brute_force(models[sample.model], prompt, min_prob * math.exp(-BORDER), limit, stops)
        expected = sorted((decode(tokenizer, tokens), value) for tokens, value in exact.items())
        actual = sorted(saved[sample.model, sample.task.id, sample.test_index, sample.sample_index])
        total += compare(actual, expected, math.log(min_prob))
    return len(saved), total


def decode(tokenizer: FileTokenizer, tokens: tuple[int, ...]) -> str:
    """Return the text of an answer."""
    return tokenizer.decode(list(tokens), skip_special_tokens=True)


def compare(actual: list[tuple[str, float]], expected: list[tuple[str, float]], threshold: float) -> int:
    """Assert that two lists of answers are equal except near the threshold; return the number of answers compared."""
    border = max(BORDER, tolerance() if tolerance() > 0.1 else 0.0)

    def clear_texts(answers: list[tuple[str, float]]) -> list[str]:
        return [text for text, value in answers if value > threshold + border]

    every = {text for text, _ in expected}
    assert set(clear_texts(expected)) <= {text for text, _ in actual} <= every
    for text in clear_texts(expected):
        one, other = (sorted(v for t, v in answers if t == text) for answers in (actual, expected))
        assert one == pytest.approx(other, abs=tolerance())
    return len(clear_texts(expected))


@pytest.mark.parametrize("min_prob", [0.02, 0.05, 0.1, 0.3])
def test_the_answers_of_the_base_are_those_of_brute_force(
    url: str, models: dict[str, Any], tmp_path: Path, min_prob: float
) -> None:
    counts = []
    for family in FAMILIES:
        out = tmp_path / family
        run_sampling(dfs(url, out, family, min_prob))
        counts.append(check_exact(out, models, min_prob, 80))
    assert sum(n_views for n_views, _ in counts) == 16 * len(FAMILIES)
    assert sum(n_answers for _, n_answers in counts) > 0


def test_the_answers_of_an_adapter_are_those_of_brute_force(url: str, models: dict[str, Any], tmp_path: Path) -> None:
    fields = {"models": ("tiny-base", "random"), "max_tokens": 24, "dataset": "toy/recolour/evaluation#n=3", "n": 2}
    run_sampling(dfs(url, tmp_path / "run", "recolour", 0.02, **fields))
    n_views, _ = check_exact(tmp_path / "run", models, 0.02, 24)
    assert n_views == 12


def test_a_plain_vllm_refuses_too_many_log_probabilities_and_serves_few(models: dict[str, Any], tmp_path: Path) -> None:
    server = PlainVllm(TINY_BASE, "tiny-base", tmp_path / "log")
    server.start()
    try:
        server.wait()
        with pytest.raises(ServerError, match="start it with --max-logprobs 51"):
            run_sampling(dfs(server.url, tmp_path / "many", "cross", 0.02))
        run_sampling(dfs(server.url, tmp_path / "run", "cross", 0.1, n=2))
    finally:
        server.kill()
    assert check_exact(tmp_path / "run", models, 0.1, 80)[0] == 4

"""The tiny model, its adapters and their expected answers, and requests to a real server."""

from __future__ import annotations

import itertools
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.core.digests import content_hash
from harness.core.random_stream import Stream
from serve.client import admin
from serve.registry.base_model import BaseModel
from serve.registry.store import Registry
from tests.support.models.tiny_models import greedy_tokens, make_lora, make_model
from tests.support.vllm.dtypes import is_exact

BASE = "tiny"
NAMES = ("a1", "a2", "b1", "b2", "c1", "d1")
"""Two versions of a and b, one of c and d. At the start of a test the first of each is live."""
TOKENS = 12
PROMPTS = [[Stream("prompt", i, j).below(250) for j in range(20)] for i in range(16)]


@dataclass(frozen=True)
class World:
    """A model with adapters, and their answers to PROMPTS as computed by transformers and PEFT.

    Attributes:
        ids: id of each version, such as "a1", in every registry.
        expected: answers by version id, or by the base's name.
    """

    model: Path
    folders: dict[str, Path]
    ids: dict[str, str]
    expected: dict[str, list[list[int]]]

    @staticmethod
    def make(root: Path) -> World:
        """Create the models, and check that no two of them give the same answer to any prompt."""
        model = make_model(root / BASE)
        folders = {name: make_lora(root / name, model, seed) for seed, name in enumerate(NAMES)}
        ids = {name: f"{name[0]}@{content_hash(folder)[:12]}" for name, folder in folders.items()}
        expected = {ids[name]: greedy_tokens(model, folder, PROMPTS, TOKENS) for name, folder in folders.items()}
        expected[BASE] = greedy_tokens(model, None, PROMPTS, TOKENS)
        for one, two in itertools.combinations(expected, 2):
            assert all(x != y for x, y in zip(expected[one], expected[two], strict=True)), (one, two)
        return World(model, folders, ids, expected)

    def publish(self, registry: Registry) -> None:
        """Register every adapter; registered ones stay unchanged."""
        base = BaseModel.open(self.model)
        for name, folder in self.folders.items():
            assert registry.add(name[0], folder, base).id == self.ids[name]

    def set_live(self, url: str, *names: str) -> None:
        """Make these versions live on a server."""
        for name in names:
            admin.promote(url, self.ids[name])

    def wrong(self, answers: list[tuple[str, int, list[int]]]) -> list[tuple[str, int]]:
        """Return those (model of the answer, prompt, tokens) that are not the model's answer."""
        return [(model, at) for model, at, tokens in answers if not self.is_right(model, at, tokens)]

    def is_right(self, model: str, at: int, tokens: list[int]) -> bool:
        """Return whether tokens are a model's answer to a prompt, as far as it is known."""
        return is_answer(tokens, model, {name: known[at] for name, known in self.expected.items()})


def is_answer(tokens: list[int], model: str, expected: Mapping[str, list[int]]) -> bool:
    """Return whether tokens are a model's answer; in 16 bits answers diverge, and no other model's may be closer."""
    if is_exact():
        return tokens[: len(expected[model])] == expected[model]
    shared = {name: _shared(tokens, known) for name, known in expected.items()}
    return shared[model] == max(shared.values())


def _shared(one: list[int], other: list[int]) -> int:
    """Return how many tokens two answers have in common at their beginning."""
    return next((k for k, (x, y) in enumerate(zip(one, other, strict=False)) if x != y), min(len(one), len(other)))


def post(url: str, body: dict[str, Any], seconds: float = 300) -> tuple[int, dict[str, Any]]:
    """Send a POST and return the status and JSON of its answer."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=seconds) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def get_text(url: str) -> str:
    """Return the text of a GET."""
    with urllib.request.urlopen(url, timeout=60) as reply:
        return str(reply.read().decode())


def ask(url: str, model: str, prompt: list[int], **more: Any) -> tuple[str, list[int]]:
    """Return the version that answered, and its token ids at temperature 0."""
    body = {"model": model, "prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True}
    status, answer = post(f"{url}/v1/completions", body | {"return_token_ids": True} | more)
    assert status == 200, answer
    assert answer["choices"][0]["finish_reason"] == "length", answer
    return answer["model"], answer["choices"][0]["token_ids"]


def figure(url: str, name: str, *labels: str) -> float:
    """Return the sum of a Prometheus metric over the lines with all these labels (``model="a"``)."""
    lines = [line for line in get_text(f"{url}/metrics").splitlines() if line.startswith((f"{name}{{", f"{name} "))]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if all(label in line for label in labels))

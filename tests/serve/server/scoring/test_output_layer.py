"""Adapters on the output layer, which vLLM mixes into other prompts where ``prompt_rows_are_right`` is not set."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.client.protocol.error_response import TransientError, classify_error
from serve.server.adapters.loaded_versions import LoadedVersion
from tests.serve.conftest import OpenSite
from tests.support.commands import run_bench
from tests.support.models.tiny_models import make_model
from tests.support.servers.admin_site import Site

_SCORING = {"model": "toy-base", "prompts": [{"prompt": [1], "answers": [[1]]}]}
REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("/arc/score", _SCORING),
    ("/v1/completions", {"model": "toy-base", "prompt": [1], "prompt_logprobs": 0}),
    ("/v1/completions", {"model": "toy-base", "prompt": [1], "echo": True, "logprobs": 0}),
    ("/v1/chat/completions", {"model": "toy-base", "messages": [], "prompt_logprobs": 1}),
]
ACCEPTED = [
    ("/v1/completions", {"model": "toy-base", "prompt": [1], "echo": True}),
    ("/v1/completions", {"model": "toy-base", "prompt": [1], "logprobs": 1, "prompt_logprobs": None}),
    ("/v1/chat/completions", {"model": "toy-base", "messages": [], "logprobs": True}),
]


def put_on_output_layer(entry: LoadedVersion) -> None:
    """Make a loaded adapter one that has weights for the output layer."""
    targets = (*entry.verified.facts.targets, "lm_head")
    entry.verified = SimpleNamespace(facts=SimpleNamespace(targets=targets))  # type: ignore[assignment]


def test_an_adapter_on_the_output_layer_is_refused_where_vllm_mixes_it_up(site: Site) -> None:
    """Every request for log-probabilities of a prompt, also of the base; no other request."""

    async def statuses(requests: list[tuple[str, dict[str, Any]]]) -> list[int]:
        return [(await site.request("POST", path, body))[0] for path, body in requests]

    async def scenario() -> None:
        await site.pool.load("a")
        assert await statuses(REFUSED + ACCEPTED) == [200] * 7
        (entry,) = site.pool.loaded.values()
        put_on_output_layer(entry)
        assert await statuses(REFUSED + ACCEPTED) == [422] * 4 + [200] * 3
        status, reply = await site.request("POST", *REFUSED[0])
        error = classify_error(status, reply, None, "the server")
        assert "LoRA on the output layer" in str(error)
        assert not isinstance(error, TransientError), "clients must not take it for a busy server, and wait"
        site.service.prompt_rows_are_right = True
        assert await statuses(REFUSED) == [200] * 4

    asyncio.run(scenario())


def test_what_waited_for_a_slot_is_refused_if_such_an_adapter_was_loaded_meanwhile(site: Site) -> None:
    async def scenario() -> None:
        await site.pool.load("a")
        gate = site.service.gate
        assert gate is not None
        async with AsyncExitStack() as stack:
            for holder in range(gate.slots):
                await stack.enter_async_context(gate.hold_slot(f"holder{holder}"))
            path, body = REFUSED[0]
            waiting = asyncio.create_task(site.request("POST", path, {**body, "model": "a"}))
            await asyncio.sleep(0.1)
            assert not waiting.done()
            await site.pool.load("b")
            put_on_output_layer(site.pool.loaded[site.registry.find("b").id])
        assert (await waiting)[0] == 422

    asyncio.run(scenario())


def test_given_servers_say_whether_they_rescore_with_adapters_on_the_output_layer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], open_site: OpenSite
) -> None:
    site = open_site()
    words = ["ttt", "examples/ttt-tiny.yaml", "--dataset", "toy/cross/evaluation#n=3", "--out", tmp_path / "run"]
    words += ["--set", f"model={make_model(tmp_path / 'base', family='llama', tied=False)}"]
    with site.over_http() as url:
        words += ["--server", url, "--adapters", site.pool.registry.root, "--dry-run", "--rescore", "2"]
        output_layer = ["--set", "lora.targets=[q_proj, lm_head]"]
        status, _, errors = run_bench(capsys, *words, *output_layer)
        assert (status, f"log-probabilities of prompts are wrong on {url};" in errors) == (2, True), errors
        assert run_bench(capsys, *words)[0] == 0
        site.service.prompt_rows_are_right = True
        assert run_bench(capsys, *words, *output_layer)[0] == 0

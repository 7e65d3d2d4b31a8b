"""Token ids are sent only if every server tokenizes chats to exactly them; the predictions are equal either way."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.runs.sampling_runs import (
    QUICK_POLICY,
    predictions_without_times,
    run_options,
    run_sampling,
    used_api,
)
from tests.support.servers.chat_answers import Body, mixed_answer
from tests.support.servers.chat_server import TINY_BASE, ChatServer

KNOWN: Body = {"root": str(TINY_BASE), "max_model_len": 4096}


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.0, "samples_per_view": 2}, {"max_tokens": 5}])
def test_predictions_are_the_same_by_either_route(tmp_path: Path, settings: dict[str, object]) -> None:
    with ChatServer(mixed_answer, tokens=True) as server:
        run_sampling(run_options(server, tmp_path / "chat", api="chat", **settings))
        run_sampling(run_options(server, tmp_path / "ids", **settings))
    assert (used_api(tmp_path / "chat"), used_api(tmp_path / "ids")) == ("chat", "completions")
    assert predictions_without_times(tmp_path / "chat") == predictions_without_times(tmp_path / "ids")


def test_parameters_are_sent_explicitly_and_neutral(tmp_path: Path) -> None:
    with ChatServer(tokens=True) as server:
        run_sampling(run_options(server, tmp_path / "run", models=("base",), extra_body={"min_tokens": 2}))
    body = {name: value for name, value in server.requests[0].items() if name != "prompt"}
    assert body == {
        "model": "base", "max_tokens": 30 * 31 - 1 + 8, "temperature": 0.0, "top_p": 1.0, "min_p": 0.0, "top_k": -1,
        "presence_penalty": 0.0, "frequency_penalty": 0.0, "repetition_penalty": 1.0, "logprobs": 0, "min_tokens": 2,
    }  # fmt: skip


@pytest.mark.parametrize("max_in_flight", [1, 8, 64])
def test_lists_are_of_one_test_output_and_leave_the_server_several(tmp_path: Path, max_in_flight: int) -> None:
    policy = replace(QUICK_POLICY, max_in_flight=max_in_flight)
    with ChatServer(tokens=True, seconds=0.005) as server:
        run_sampling(run_options(server, tmp_path / "run", models=("base",), n=20, policy=policy))
    sizes = [len(body["prompt"]) for body in server.requests]
    assert max(sizes) == {1: 1, 8: 2, 64: 16}[max_in_flight]
    assert server.most_in_flight <= max_in_flight
    for body in server.requests:
        lengths = {len(ids) for ids in body["prompt"]}
        assert len(lengths) == 1


def why_chats(tmp_path: Path, server: ChatServer, **changes: object) -> str:
    """Make a run that must use chats, and return the line that says why."""
    shown = io.StringIO()
    run_sampling(run_options(server, tmp_path / "run", **changes), shown)
    assert used_api(tmp_path / "run") == "chat"
    lines = [line for line in shown.getvalue().splitlines() if line.startswith("asking through chat completions")]
    assert len(lines) == 1
    return lines[0]


def test_without_proof_chats_are_sent_and_why_is_said_once(tmp_path: Path) -> None:
    with ChatServer(models={"base": KNOWN, "cross": KNOWN}) as server:
        assert "404" in why_chats(tmp_path / "route", server)
    with ChatServer(models={"base": KNOWN, "cross": KNOWN}, tokenize=True) as server:
        assert "as other tokens" in why_chats(tmp_path / "tokens", server)
    with ChatServer(models={"base": {}, "cross": {}}, tokens=True) as server:
        assert "the tokenizer of the models is not on this machine" in why_chats(tmp_path / "unnamed", server)
    elsewhere = {"root": "/models/of/another/machine"}
    with ChatServer(models={"base": elsewhere, "cross": elsewhere}, tokens=True) as server:
        assert "another/machine is not on this machine" in why_chats(tmp_path / "elsewhere", server)
    with ChatServer(tokens=True) as server:
        chosen = {"extra_body": {"reasoning_effort": "low"}}
        assert "extra-body sets reasoning_effort" in why_chats(tmp_path / "extra", server, **chosen)


def test_an_adapters_base_names_the_tokenizer(tmp_path: Path) -> None:
    adapter = {"root": "/adapters/cross", "parent": "base"}
    with ChatServer(mixed_answer, models={"base": KNOWN, "cross": adapter}, tokens=True) as server:
        run_sampling(run_options(server, tmp_path / "run", models=("cross",)))
    assert used_api(tmp_path / "run") == "completions"


def test_one_server_that_reads_prompts_otherwise_means_chats_for_all(tmp_path: Path) -> None:
    with (
        ChatServer(tokens=True) as first,
        ChatServer(models={"base": KNOWN, "cross": KNOWN}, tokenize=True) as second,
    ):
        why = why_chats(tmp_path, first, servers=(first.url, second.url))
    assert second.url in why

"""Stop tokens, template variables, dates and system messages: found out before a run, sent with it, recorded."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from harness.core.errors import RunError, ServerError
from harness.prompts.file_tokenizer import FileTokenizer, eos_token_ids
from harness.runs.folder import RunFolder
from harness.runs.schemas.manifest_schema import Manifest
from harness.sampling.reproduction import reproduce_run
from harness.sampling.unmeasured_models import NothingMeasuredError
from tests.families import templates
from tests.families.make import make_tokenizer
from tests.support.runs.sampling_runs import QUICK_POLICY, count_outcomes, run_options, run_sampling, warnings_with
from tests.support.servers.chat_answers import Body
from tests.support.servers.chat_server import TINY_BASE, ChatServer

WITH_SYSTEM = {"prompt": "output-from-examples-v1", "encoder": None, "models": ("base",)}
SILENT = {"prompt": None, "encoder": None}
"""The user says nothing about prompt and encoder."""
ROUTES = pytest.mark.parametrize("api", ["chat", "completions"])


def solve(body: Body) -> str:
    """Return the right answer to a task of toy/copy for prompts with grids in fences."""
    blocks = re.findall(r"```grid.*?\n```", body["messages"][-1]["content"], re.DOTALL)
    return f"### Output\n\n{blocks[-1]}"


def adapter(base: Path, **manifest: object) -> dict[str, Body]:
    """Return a server's list of models: a base, and an adapter with a manifest."""
    trained = {"prompt": "compact-v0", "encoder": "MinimalGridEncoder()", **manifest}
    entry: Body = {"root": str(base), "max_model_len": 4096}
    return {"base": entry, "cross": {"parent": "base", "arc_bench": {"hash": "abc", "manifest": trained}}}


def manifest(run: Path) -> Manifest:
    return RunFolder(run).manifest()


def written(base: Path, body: Body) -> str:
    """Return the decoded prompt of a request with token ids."""
    return FileTokenizer(base).decode(body["prompt"][0])


@ROUTES
def test_the_token_that_ends_a_turn_is_sent_if_it_is_no_eos_token(tmp_path: Path, api: str) -> None:
    base = make_tokenizer("qwen3-base", tmp_path / "base")
    end = FileTokenizer(base).encode("<|im_end|>", add_special_tokens=False)
    assert not set(end) & eos_token_ids(base)
    with ChatServer(base=base, tokens=True) as server:
        run_sampling(run_options(server, tmp_path / "run", api=api))
    assert {tuple(body["stop_token_ids"]) for body in server.requests} == {tuple(end)}
    assert [model.stop_token_ids for model in manifest(tmp_path / "run").config.models] == [end, end]
    (_,) = warnings_with(tmp_path / "run", f"base, cross: an answer ends with token {end[0]}, which is not among")


@ROUTES
def test_no_stop_token_is_sent_if_the_turn_ends_with_eos(tmp_path: Path, api: str) -> None:
    with ChatServer(tokens=True) as server:
        run_sampling(run_options(server, tmp_path / "run", api=api))
    assert not any("stop_token_ids" in body for body in server.requests)
    assert manifest(tmp_path / "run").warnings == []


def test_the_users_stop_tokens_are_kept(tmp_path: Path) -> None:
    base = make_tokenizer("qwen3-base", tmp_path / "base")
    with ChatServer(base=base, tokens=True) as server:
        run_sampling(run_options(server, tmp_path / "run", extra_body={"stop_token_ids": [5]}))
    assert {tuple(body["stop_token_ids"]) for body in server.requests} == {(5,)}


def test_without_a_checked_tokenizer_the_end_of_the_turn_is_only_a_warning(tmp_path: Path) -> None:
    base = make_tokenizer("qwen3-base", tmp_path / "base")
    with ChatServer(models={"base": {"root": str(base)}}) as server:
        run_sampling(run_options(server, tmp_path / "run", models=("base",)))
    assert not any("stop_token_ids" in body for body in server.requests)
    assert warnings_with(tmp_path / "run", "servers are not asked to stop there")


@pytest.mark.parametrize("api", ["chat", "completions", "unknown"])
def test_settings_of_an_adapters_manifest_are_sent_with_every_request(tmp_path: Path, api: str) -> None:
    """They are sent for the base as well, so that the scores can be compared."""
    base = make_tokenizer("qwen3", tmp_path / "base")
    models = adapter(base, stop_token_ids=[7, 9], chat_template_kwargs={"enable_thinking": False})
    with ChatServer(models=models, base=base, tokens=api != "unknown") as server:
        run_sampling(run_options(server, tmp_path / "run", **SILENT, api="auto" if api == "unknown" else api))
    assert count_outcomes(tmp_path / "run") == {"grid": 40}
    assert {tuple(body["stop_token_ids"]) for body in server.requests} == {(7, 9)}
    if api == "completions":
        assert all(written(base, body).endswith("<think>\n\n</think>\n\n") for body in server.requests)
    else:
        assert all(body["chat_template_kwargs"] == {"enable_thinking": False} for body in server.requests)
    for model in manifest(tmp_path / "run").config.models:
        assert model.stop_token_ids == [7, 9]
        assert model.chat_template_kwargs == {"enable_thinking": False}


def test_the_users_template_variables_override_the_manifest_with_a_warning(tmp_path: Path) -> None:
    base = make_tokenizer("qwen3", tmp_path / "base")
    models = adapter(base, chat_template_kwargs={"enable_thinking": False})
    asked = {"chat_template_kwargs": {"enable_thinking": True}}
    with ChatServer(models=models) as server:
        run_sampling(run_options(server, tmp_path / "run", **SILENT, models=("cross",), **asked))
    assert all(body["chat_template_kwargs"] == {"enable_thinking": True} for body in server.requests)
    assert warnings_with(
        tmp_path / "run", "trained with enable_thinking = False in its template, but is asked with True"
    )


@pytest.mark.parametrize("how", ["named", "unnamed"])
def test_refused_stop_tokens_are_omitted_with_a_warning(tmp_path: Path, how: str) -> None:
    def refuse(body: Body) -> tuple[int, Body] | None:
        why = "Unrecognized request argument: stop_token_ids" if how == "named" else "bad request"
        return (400, {"error": {"message": why}}) if "stop_token_ids" in body else None

    with ChatServer(models=adapter(TINY_BASE, stop_token_ids=[7]), refuse=refuse) as server:
        run_sampling(run_options(server, tmp_path / "run", models=("cross",)))
    assert count_outcomes(tmp_path / "run") == {"grid": 20}
    assert manifest(tmp_path / "run").without == ["stop_token_ids"]
    assert warnings_with(tmp_path / "run", "does not take stop_token_ids")


@ROUTES
def test_a_template_writes_the_same_date_throughout_a_run(tmp_path: Path, api: str) -> None:
    base, run = make_tokenizer("llama3", tmp_path / "base"), tmp_path / "run"
    with ChatServer(base=base, tokens=True) as server:
        chosen = run_options(server, run, models=("base",), api=api)
        run_sampling(chosen)
        (model,) = manifest(run).config.models
        assert model.template_date is not None
        assert abs((datetime.now(UTC).date() - datetime.fromisoformat(model.template_date).date()).days) <= 1
        _begun_on(run, "2020-05-04")
        before = len(server.requests)
        run_sampling(replace(chosen, resume=True))
    assert manifest(run).config.models[0].template_date == "2020-05-04"
    assert len(server.requests) > before
    for body in server.requests[before:]:
        if api == "completions":
            assert "Today Date: 04 May 2020\n" in written(base, body)
        else:
            assert body["chat_template_kwargs"] == {"date_string": "04 May 2020"}


def _begun_on(run: Path, day: str) -> None:
    """Make a run unfinished, and as if it had been begun on another day."""
    saved = json.loads((run / "manifest.json").read_text())
    del saved["checksum"]
    saved["config"]["models"][0]["template_date"] = day
    saved |= {"finished": None, "predictions_sha256": None}
    (run / "manifest.json").write_text(json.dumps(saved))
    lines = (run / "predictions.jsonl").read_text().splitlines(keepends=True)
    (run / "predictions.jsonl").write_text("".join(lines[:-9]))


def test_an_adapter_is_prompted_with_the_date_of_its_training(tmp_path: Path) -> None:
    models = adapter(TINY_BASE, template_date="2020-05-04")
    with ChatServer(models=models) as server:
        run_sampling(run_options(server, tmp_path / "run"))
    assert all(body["chat_template_kwargs"] == {"date_string": "04 May 2020"} for body in server.requests)
    assert {model.template_date for model in manifest(tmp_path / "run").config.models} == {"2020-05-04"}


def test_an_adapter_with_its_own_template_is_sent_token_ids(tmp_path: Path) -> None:
    """Its base has no template, so that the server accepts no chats."""
    base = make_tokenizer("llama3-base", tmp_path / "base")
    models = adapter(base, chat_template=templates.LLAMA3, template_date="2020-05-04", stop_token_ids=[7])
    with ChatServer(models=models, tokens=True, refuse=no_chats) as server:
        server.tokenizer = FileTokenizer(base, template=templates.LLAMA3)
        run_sampling(run_options(server, tmp_path / "run", models=("cross",)))
    assert count_outcomes(tmp_path / "run") == {"grid": 20}
    ids = FileTokenizer(base, template=templates.LLAMA3)
    assert all("Today Date: 04 May 2020\n" in ids.decode(body["prompt"][0]) for body in server.requests)
    (model,) = manifest(tmp_path / "run").config.models
    assert model.chat_template is not None


_NO_TEMPLATE = "default chat template is no longer allowed, so you must provide a chat template"


def no_chats(body: Body) -> tuple[int, Body] | None:
    """Refuse chats as a server without a chat template does; chats request log-probabilities by true, not by 0."""
    return (400, {"error": {"message": _NO_TEMPLATE}}) if body.get("logprobs") is True else None


def test_a_server_without_a_chat_template_is_never_probed_by_chat(tmp_path: Path) -> None:
    """A request that always fails is recorded as an error, because the probe shows that the server still answers."""
    base = make_tokenizer("llama3-base", tmp_path / "base")
    models = adapter(base, chat_template=templates.LLAMA3)
    with ChatServer(lambda body: "!http_500", models=models, base=TINY_BASE, tokens=True, refuse=no_chats) as server:
        server.tokenizer = FileTokenizer(base, template=templates.LLAMA3)
        with pytest.raises(NothingMeasuredError, match="1 error"):
            run_sampling(run_options(server, tmp_path / "run", models=("cross",), dataset="toy/copy#n=1", n=1))
    assert count_outcomes(tmp_path / "run") == {"error": 1}


def test_a_missing_chat_template_is_a_clear_error(tmp_path: Path) -> None:
    with (
        ChatServer(refuse=lambda body: no_chats({"logprobs": True})) as server,
        pytest.raises(ServerError, match="no chat template for its model"),
    ):
        run_sampling(run_options(server, tmp_path / "run"))


def test_a_chat_carries_the_adapters_template(tmp_path: Path) -> None:
    with ChatServer(models=adapter(TINY_BASE, chat_template=templates.QWEN3)) as server:
        run_sampling(run_options(server, tmp_path / "run", models=("cross",)))
    assert {body["chat_template"] for body in server.requests} == {templates.QWEN3}
    assert warnings_with(tmp_path / "run", "--trust-request-chat-template")


@pytest.mark.parametrize(("family", "how"), [("qwen3", "lets the model think"), ("qwen3-thinking", "opens a thought")])
def test_a_reasoning_template_is_a_warning_for_untrained_models_only(tmp_path: Path, family: str, how: str) -> None:
    base = make_tokenizer(family, tmp_path / "base")
    with ChatServer(models=adapter(base), base=base, tokens=True) as server:
        run_sampling(run_options(server, tmp_path / "run"))
    (line,) = warnings_with(tmp_path / "run", how)
    assert line.startswith("the chat template of base")


@pytest.mark.parametrize("tokens", [True, False])
def test_without_a_system_role_the_prompt_has_no_system_message(tmp_path: Path, tokens: bool) -> None:
    base, run = make_tokenizer("gemma2", tmp_path / "base"), tmp_path / "run"

    def refuse(body: Body) -> tuple[int, Body] | None:
        system = any(message["role"] == "system" for message in body["messages"])
        return (400, {"error": {"message": "System role not supported"}}) if system else None

    with ChatServer(solve, base=base, tokens=tokens, refuse=refuse) as server:
        chosen = run_options(server, run, **WITH_SYSTEM)
        run_sampling(chosen)
        assert warnings_with(run, "asking with output-from-examples-nosystem-v1 instead of output-from-examples-v1")
        assert count_outcomes(run) == {"grid": 20}
        asked = len(server.requests)
        assert run_sampling(replace(chosen, resume=True)).finished
        assert len(server.requests) == asked
        _, agreement = reproduce_run(run, tmp_path / "again", policy=QUICK_POLICY)
    assert agreement is not None
    assert agreement.same == agreement.predictions == 20


def test_a_template_that_drops_the_system_message_is_detected(tmp_path: Path) -> None:
    """An adapter that was trained with such a prompt is sampled with it."""
    base = make_tokenizer("qwen2", tmp_path / "base")
    dropping = templates.QWEN3.replace("{%- else %}", "{%- elif m.role == 'user' %}")
    (base / "chat_template.jinja").write_text(dropping)
    entry = {"root": str(base), "max_model_len": 4096}
    with ChatServer(solve, models={"base": entry}, base=base, tokens=True) as server:
        run_sampling(run_options(server, tmp_path / "run", **WITH_SYSTEM))
        server.models = adapter(base, prompt="output-from-examples-v1", encoder=None)
        run_sampling(
            run_options(
                server,
                tmp_path / "trained",
                **{**WITH_SYSTEM, **SILENT},
            )
        )
        run_sampling(
            run_options(server, tmp_path / "adapter", **{**WITH_SYSTEM, **SILENT, "models": ("base", "cross")})
        )
    assert manifest(tmp_path / "run").config.models[0].prompt == "output-from-examples-nosystem-v1"
    assert manifest(tmp_path / "trained").config.models[0].prompt == "output-from-examples-nosystem-v1"
    assert {m.prompt for m in manifest(tmp_path / "adapter").config.models} == {"output-from-examples-v1"}


def test_a_run_is_not_reproduced_if_its_prompt_is_refused(tmp_path: Path) -> None:
    refused: list[bool] = []

    def refuse(body: Body) -> tuple[int, Body] | None:
        system = body["messages"][0]["role"] == "system"
        return (400, {"error": {"message": "System role not supported"}}) if system and refused else None

    with ChatServer(solve, refuse=refuse) as server:
        run_sampling(run_options(server, tmp_path / "run", **WITH_SYSTEM))
        refused.append(True)
        with pytest.raises(RunError, match=r"cannot be repeated: .* takes no system message"):
            reproduce_run(tmp_path / "run", tmp_path / "again", policy=QUICK_POLICY)

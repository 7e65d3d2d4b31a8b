"""Chats or token ids: ids only where every server is seen to read chats as exactly those; the answers are the same."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from harness.core.errors import ConfigError
from harness.prompts.file_tokenizer import FileTokenizer, find_tokenizer_folder
from tests.support.chat_answers import Body, moody
from tests.support.chat_server import TINY_BASE, ChatServer
from tests.support.sampling_toys import QUICK, api, options, sample, stable

KNOWN: Body = {"root": str(TINY_BASE), "max_model_len": 4096}


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.0, "samples_per_view": 2}, {"max_tokens": 5}])
def test_predictions_are_the_same_by_either_route(tmp_path: Path, settings: dict[str, object]) -> None:
    with ChatServer(moody, tokens=True) as server:
        sample(options(server, tmp_path / "chat", api="chat", **settings))
        sample(options(server, tmp_path / "ids", **settings))
    assert (api(tmp_path / "chat"), api(tmp_path / "ids")) == ("chat", "completions")
    assert stable(tmp_path / "chat") == stable(tmp_path / "ids")


def test_parameters_are_sent_explicitly_and_neutral(tmp_path: Path) -> None:
    with ChatServer(tokens=True) as server:
        sample(options(server, tmp_path / "run", models=("base",), extra_body={"min_tokens": 2}))
    body = {name: value for name, value in server.requests[0].items() if name != "prompt"}
    assert body == {
        "model": "base", "max_tokens": 30 * 31 - 1 + 8, "temperature": 0.0, "top_p": 1.0, "min_p": 0.0, "top_k": -1,
        "presence_penalty": 0.0, "frequency_penalty": 0.0, "repetition_penalty": 1.0, "logprobs": 0, "min_tokens": 2,
    }  # fmt: skip


@pytest.mark.parametrize("max_in_flight", [1, 8, 64])
def test_lists_are_of_one_test_output_and_leave_the_server_several(tmp_path: Path, max_in_flight: int) -> None:
    policy = replace(QUICK, max_in_flight=max_in_flight)
    with ChatServer(tokens=True, seconds=0.005) as server:
        sample(options(server, tmp_path / "run", models=("base",), n=20, policy=policy))
    sizes = [len(body["prompt"]) for body in server.requests]
    assert max(sizes) == {1: 1, 8: 2, 64: 16}[max_in_flight]
    assert server.most_in_flight <= max_in_flight
    for body in server.requests:
        lengths = {len(ids) for ids in body["prompt"]}
        assert len(lengths) == 1


def why_chats(tmp_path: Path, server: ChatServer, **changes: object) -> str:
    """What is said about the route of a run that must be by chats."""
    said = io.StringIO()
    sample(options(server, tmp_path / "run", **changes), said)
    assert api(tmp_path / "run") == "chat"
    lines = [line for line in said.getvalue().splitlines() if line.startswith("asking through chat completions")]
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
    with ChatServer(moody, models={"base": KNOWN, "cross": adapter}, tokens=True) as server:
        sample(options(server, tmp_path / "run", models=("cross",)))
    assert api(tmp_path / "run") == "completions"


def test_one_server_that_reads_prompts_otherwise_means_chats_for_all(tmp_path: Path) -> None:
    with (
        ChatServer(tokens=True) as first,
        ChatServer(models={"base": KNOWN, "cross": KNOWN}, tokenize=True) as second,
    ):
        why = why_chats(tmp_path, first, servers=(first.url, second.url))
    assert second.url in why


def test_a_hub_id_is_found_in_the_local_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "models--some--base"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text("abc")
    shutil.copytree(TINY_BASE, model / "snapshots" / "abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert find_tokenizer_folder("some/base") == model / "snapshots" / "abc"
    assert find_tokenizer_folder("some/other") is None
    assert find_tokenizer_folder("not a hub id / at all") is None


def test_a_broken_tokenizer_is_one_clear_error(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(TINY_BASE, tmp_path / "base"))
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ConfigError, match="no chat template"):
        FileTokenizer(folder)
    (folder / "chat_template.jinja").write_text("{% for m in messages %}")
    with pytest.raises(ConfigError, match="chat template of"):
        FileTokenizer(folder)
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"tokenizer\.json"):
        FileTokenizer(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ConfigError, match=r"tokenizer\.json"):
        FileTokenizer(folder)


@pytest.mark.parametrize("form", ["text", "named", "file"])
def test_the_template_is_found_where_models_keep_it(tmp_path: Path, form: str) -> None:
    folder = Path(shutil.copytree(TINY_BASE, tmp_path / "base"))
    config = json.loads((folder / "tokenizer_config.json").read_text())
    template = "{{ bos_token }}{% for m in messages %}[{{ m.content }}]{% endfor %}{{ mood }}{{ messages | tojson }}"
    if form == "file":
        (folder / "chat_template.jinja").write_text(template)
    else:
        (folder / "chat_template.jinja").unlink()
        named = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": template}]
        config["chat_template"] = template if form == "text" else named
    config["bos_token"] = {"content": "<s>", "special": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = FileTokenizer(folder, {"mood": "!"})
    chat = [{"role": "user", "content": "é<"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == '<s>[é<]![{"role": "user", "content": "é<"}]'


@pytest.mark.slow
def test_ids_and_texts_are_those_of_transformers() -> None:
    from transformers import AutoTokenizer

    theirs, ours = AutoTokenizer.from_pretrained(str(TINY_BASE)), FileTokenizer(TINY_BASE)
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "0123\n45 ```grid\n\n"}]
    for opened in (True, False):
        text = theirs.apply_chat_template(chat, tokenize=False, add_generation_prompt=opened)
        assert ours.apply_chat_template(chat, tokenize=False, add_generation_prompt=opened) == text
        ids = theirs.encode(text, add_special_tokens=False)
        assert ours.encode(text, add_special_tokens=False) == ids
        assert ours.decode(ids) == theirs.decode(ids)
    assert ours.all_special_ids >= set(theirs.all_special_ids)

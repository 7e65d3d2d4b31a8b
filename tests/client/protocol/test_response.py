"""Responses in the forms of different servers are parsed, or are a transient error."""

from __future__ import annotations

import pytest

from harness.client.http.http_session import parse_body
from harness.client.protocol.error_response import Refusal, TransientError
from harness.client.protocol.request import ChatRequest
from harness.client.protocol.response import Reply, parse_replies
from harness.prompts.prompt_template import Message
from tests.support.servers.chat_answers import Body

CHAT = ChatRequest("m", (Message("user", "?"),), 20, None)


def choice(content: object, finish: object = "stop", **more: object) -> Body:
    return {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": content, **more}}


def read(*choices: Body, **more: object) -> Reply:
    (reply,) = parse_replies({"model": "m", "choices": list(choices), **more}, CHAT, 1.0)
    return reply


@pytest.mark.parametrize(
    "content",
    [
        "12",
        [{"type": "text", "text": "12"}],
        [{"type": "text", "text": "1"}, {"type": "text", "text": "2"}],
        [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "12"}],
        [{"type": "reasoning", "text": "34"}, {"type": "output_text", "text": "12"}],
        {"type": "text", "text": "12"},
        ["12"],
    ],
)
def test_the_text_parts_of_a_content_are_joined(content: object) -> None:
    assert read(choice(content)).text == "12"


@pytest.mark.parametrize("content", [7, [7], [{"type": "text"}], [{"type": "text", "text": 7}], [None]])
def test_a_content_without_text_is_a_transient_error(content: object) -> None:
    with pytest.raises(TransientError):
        read(choice(content))


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
@pytest.mark.parametrize("content", [None, ""])
def test_reasoning_without_an_answer_is_recognised(content: object, name: str) -> None:
    assert read(choice(content, **{name: "hm"})).only_reasoning
    assert not read(choice("12", **{name: "hm"})).only_reasoning
    assert not read(choice(content)).only_reasoning


@pytest.mark.parametrize(
    "broken",
    [
        choice("", "error"),
        choice("12", "error"),
        choice(None, None),
        choice(" \n", None),
        {**choice("12"), "error": {"code": 502, "message": "Provider error"}},
    ],
)
def test_an_answer_that_is_an_error_or_empty_is_a_transient_error(broken: Body) -> None:
    with pytest.raises(TransientError):
        read(broken)


def test_an_error_in_place_of_choices_is_classified() -> None:
    with pytest.raises(Refusal) as caught:
        read(error={"message": "Insufficient credits", "code": 402})
    assert caught.value.is_about_account


@pytest.mark.parametrize("finish", ["length", "LENGTH", "max_tokens", "MAX_TOKENS", "model_length", {"type": "length"}])
def test_a_truncated_answer_is_recognised_by_any_servers_finish_reason(finish: object) -> None:
    assert read(choice("12", finish)).truncated


@pytest.mark.parametrize("finish", ["stop", "eos", "end_turn", "STOP", {"type": "stop", "matched": 7}, None, 7])
def test_other_finish_reasons_are_complete_answers(finish: object) -> None:
    assert not read(choice("12", finish)).truncated


@pytest.mark.parametrize(
    "content",
    [
        b'{"choices": [], "x": NaN}', b'{"choices": [], "x": -Infinity}', b'{"choices": [], "x": 1e999}',
        b'{"choices": [], "x": "\\ud800"}', b'{"choices": [], "x": "\xff"}', b'\xef\xbb\xbf{"choices": []}',
        b'{"choices": [], "x": "a\nb"}',
    ],
)  # fmt: skip
def test_almost_valid_json_is_parsed(content: bytes) -> None:
    assert parse_body(200, content, {}, "here")["choices"] == []


def test_a_lone_surrogate_in_an_answer_can_be_saved() -> None:
    assert read(choice("1\ud800\n2")).text.encode() == b"1?\n2"


def test_a_redirect_is_refused_with_its_target() -> None:
    with pytest.raises(Refusal, match="redirects to https://there; give that address"):
        parse_body(308, b"", {"Location": "https://there"}, "here")

"""Variables and clock of chat templates, and how a template writes the assistant's turn."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.prompts.assistant_turn import find_assistant_turn
from harness.prompts.chat_template import TemplateSettings, first_lost_character, reads_clock, render_chat
from harness.prompts.file_tokenizer import FileTokenizer
from harness.prompts.prompt_template import Message
from tests.support.servers.chat_server import TINY_BASE
from trainers.tiny.tokenizer import CHATML

QUESTION = [Message("user", "1 2?")]
DATED = (
    "{{ date_string if date_string is defined else strftime_now('%d %b %Y') }} {{ tone | default('plain') }}\n" + CHATML
)


def tokenizer(template: str) -> FileTokenizer:
    return FileTokenizer(Path(TINY_BASE), template=template)


def first_line(settings: TemplateSettings) -> str:
    return render_chat(tokenizer(DATED), QUESTION, settings, opened=True).partition("\n")[0]


def test_variables_and_date_reach_the_template() -> None:
    assert first_line(TemplateSettings(date="2026-11-29")) == "29 Nov 2026 plain"
    assert first_line(TemplateSettings({"tone": "short"}, "2024-02-01")) == "01 Feb 2024 short"
    by_user = TemplateSettings({"date_string": "1 Jan 2020"}, "2026-11-29")
    assert first_line(by_user) == "1 Jan 2020 plain"


def test_a_request_gives_the_server_equal_variables() -> None:
    for variables in ({"tone": "short"}, {"date_string": "x"}):
        settings = TemplateSettings(variables, "2024-02-01")
        assert first_line(TemplateSettings(settings.request_kwargs())) == first_line(settings)
    assert TemplateSettings({"tone": "short"}).request_kwargs() == {"tone": "short"}


def test_a_template_that_calls_the_clock_is_recognised() -> None:
    assert reads_clock(tokenizer(DATED), {})
    assert not reads_clock(tokenizer(DATED), {"date_string": "1 Jan 2020"})
    assert not reads_clock(tokenizer(CHATML), {})


def test_the_assistant_turn_of_chatml() -> None:
    turn = find_assistant_turn(tokenizer(CHATML), QUESTION, "3", TemplateSettings())
    assert turn.opening == "<|im_end|>\n<|im_start|>assistant\n"
    assert (turn.answer_prefix, turn.answer_suffix) == ("", "<|im_end|>")
    assert tokenizer(CHATML).encode("<|im_end|>", add_special_tokens=False) == [turn.end_token_id]
    assert not turn.opens_thought
    assert not turn.learns_thought


def test_a_thought_opened_by_the_prompt_is_closed_in_the_answer_prefix() -> None:
    """R1's template opens a thought in prompts but writes none before an answer."""
    opens = CHATML.replace(r"assistant\n' }}", r"assistant\n<think>\n' }}")
    assert opens != CHATML
    turn = find_assistant_turn(tokenizer(opens), QUESTION, "3", TemplateSettings())
    assert turn.opening.endswith("assistant\n<think>\n")
    assert (turn.answer_prefix, turn.opens_thought, turn.learns_thought) == ("\n</think>\n\n", True, True)


@pytest.mark.parametrize(
    ("text", "decoded", "index"),
    [
        ("1 2\n", "1 2\n", None),
        ("1 2", " 1  2 ", None),  # further blanks are no loss
        ("1 2", "12", 1),
        ("ab", "a", 1),
        ("ab", "axb", 1),
        ("", "", None),
    ],
)
def test_the_first_character_that_decoding_loses(text: str, decoded: str, index: int | None) -> None:
    assert first_lost_character(text, decoded) == index

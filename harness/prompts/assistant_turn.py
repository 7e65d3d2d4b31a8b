"""Finds out how a chat template writes the assistant's turn: its opening, an empty thought, and what ends it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from harness.core.errors import ConfigError
from harness.prompts.chat_template import ChatTokenizer, TemplateSettings, decode_ids, render_chat
from harness.prompts.prompt_template import Message
from harness.prompts.reasoning import ends_in_thought

_OPEN_THOUGHT = re.compile(r"<think>\s*\Z")
_CLOSE_THOUGHT = "\n</think>\n\n"
"""Closes a thought that the prompt has opened, in the form that reasoning models write."""


@dataclass(frozen=True, slots=True)
class AssistantTurn:
    """The assistant's turn as a chat template writes it."""

    opening: str
    """The end of the prompt, after its last message, such as ``<|im_start|>assistant`` and a line break."""
    answer_prefix: str
    """Text before the answer that is trained on together with it: an empty thought of reasoning models, else empty."""
    answer_suffix: str
    """Text after the answer, up to and including the token that ends the turn."""
    end_token_id: int
    """The id of that token."""

    @property
    def opens_thought(self) -> bool:
        """Whether the prompt ends in an open thought, which the model must close before it answers."""
        return ends_in_thought(self.opening)

    @property
    def learns_thought(self) -> bool:
        """Whether the end of an empty thought is trained on together with the answer."""
        return "</think>" in self.answer_prefix


def find_assistant_turn(
    tokenizer: ChatTokenizer, messages: Sequence[Message], answer: str, settings: TemplateSettings
) -> AssistantTurn:
    """Return how the template writes ``answer`` after ``messages``.

    The prompt is the conversation as rendered without the answer, because that is what the model reads when it is
    sampled. Some templates render the same messages differently once an answer follows (Mistral's moves the system
    message, R1's drops the thought): then only the assistant's turn is taken from the conversation with the answer.

    Raises:
        ConfigError: the template changes the answer, opens the turn in another way if an answer follows, or ends the
            turn without a special token.
    """
    prompt = render_chat(tokenizer, messages, settings, opened=True)
    whole = render_chat(tokenizer, [*messages, Message("assistant", answer)], settings, opened=False)
    before, answer_in_text, after = whole.rpartition(answer)
    if not answer_in_text:
        raise ConfigError(f"it changes the answer: {_quote_end(whole)}")
    last_content = messages[-1].content.strip()
    opening = prompt.rpartition(last_content)[2]
    if before.startswith(prompt):
        prefix = before[len(prompt) :]
    else:
        opening_with_answer = before.rpartition(last_content)[2]
        without_thought = _OPEN_THOUGHT.sub("", opening)
        if opening_with_answer.startswith(opening):
            prefix = opening_with_answer[len(opening) :]
        elif without_thought != opening and opening_with_answer == without_thought:
            prefix = _CLOSE_THOUGHT
        else:
            raise ConfigError(f"with the answer it renders {_quote_end(whole)}, without it {_quote_end(prompt)}")
    suffix, end_token_id = _find_end(tokenizer, after, whole)
    return AssistantTurn(opening, prefix, suffix, end_token_id)


def _find_end(tokenizer: ChatTokenizer, after: str, whole: str) -> tuple[str, int]:
    """Return the text after an answer up to the first special token, and the id of that token.

    If there is no special token, the first added token that is not marked as special counts.
    """
    added = tokenizer.added_tokens_decoder
    special = {*tokenizer.all_special_ids, *(id_ for id_, token in added.items() if token.special)}
    ids = tokenizer.encode(after, add_special_tokens=False)
    for candidates in (special, added):
        for id_ in ids:
            text = decode_ids(tokenizer, [id_])
            if id_ in candidates and text.strip() and text in after:
                return after[: after.find(text) + len(text)], id_
    raise ConfigError(
        f"no special token ends the assistant's turn: {_quote_end(whole)}; name a template that ends it with one of "
        "the tokenizer's (chat_template)"
    )


def _quote_end(text: str) -> str:
    return repr("…" + text[-60:])

"""How a chat template writes the assistant's turn: what it opens with, what ends an answer, and where it thinks."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import JsonValue

from harness.core.errors import ConfigError
from harness.prompts.chat_template import TemplateSettings, moment
from harness.prompts.prompt_template import Message
from harness.prompts.reasoning import is_open_thought

_OPEN_THOUGHT = re.compile(r"<think>\s*\Z")
_CLOSED = "\n</think>\n\n"
"""Closes a thought that the prompt has opened, as the models that think write it."""


class ChatTokenizer(Protocol):
    """What is used of a Hugging Face tokenizer."""

    @property
    def all_special_ids(self) -> Collection[int]:
        """The ids of special tokens; of transformers' tokenizers those that have a name (``eos_token``)."""
        ...

    @property
    def added_tokens_decoder(self) -> Mapping[int, Any]:
        """By id, the tokens that were added to the vocabulary; each says whether it is ``special``."""
        ...

    def apply_chat_template(
        self, conversation: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool, **variables: object
    ) -> object:
        """The conversation as text (``tokenize`` is always False here)."""
        ...

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """The ids of a text."""
        ...

    def decode(
        self, token_ids: Sequence[int], *, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool = False
    ) -> object:
        """The text of ids."""
        ...


class TemplateRefusal(ConfigError):
    """A chat template does not take the messages of a prompt."""


@dataclass(frozen=True, slots=True)
class Turn:
    """The assistant's turn as a chat template writes it."""

    opening: str
    """What the prompt ends with after its last message, such as ``<|im_start|>assistant`` and a line break."""
    lead: str
    """What stands before the answer and is learned with it; an empty thought of models that think."""
    end: str
    """What stands behind the answer, up to and including the token that ends the turn."""
    end_id: int
    """That token."""

    @property
    def opens_thought(self) -> bool:
        """Whether the prompt leaves a thought open, which the model must close before it answers."""
        return is_open_thought(self.opening)

    @property
    def learns_thought(self) -> bool:
        """Whether the end of an (empty) thought is learned with the answer."""
        return "</think>" in self.lead


def render(tokenizer: ChatTokenizer, messages: Sequence[Message], settings: TemplateSettings, *, opened: bool) -> str:
    """The text of a conversation; ``opened`` adds the opening of the assistant's turn.

    Raises:
        TemplateRefusal: the tokenizer has no chat template, or it does not take these messages.
    """
    from jinja2 import TemplateError

    if getattr(tokenizer, "chat_template", "") is None:
        raise TemplateRefusal("the tokenizer has no chat template; name one with chat_template (chatml, or a file)")
    conversation = [{"role": m.role, "content": m.content} for m in messages]
    try:
        text = tokenizer.apply_chat_template(
            conversation, tokenize=False, add_generation_prompt=opened, **settings.arguments()
        )
    except (TemplateError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise TemplateRefusal(" ".join(str(error).split())[:300]) from error
    return str(text)


def text_of(tokenizer: ChatTokenizer, ids: Sequence[int]) -> str:
    """The text of ids, special tokens included, with every blank (some tokenizers tidy blanks up unless told)."""
    return str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))


def reads_clock(tokenizer: ChatTokenizer, kwargs: Mapping[str, JsonValue]) -> bool:
    """Whether a tokenizer's chat template asks for the time or the date, so that tomorrow's prompts would differ."""
    asked: list[str] = []

    def strftime_now(form: str) -> str:
        asked.append(form)
        return moment("2000-01-01", form)

    for roles in (("system", "user"), ("user",)):
        messages = [{"role": role, "content": "?"} for role in roles]
        with suppress(Exception):  # A template may fail in any way; rendering a prompt says how.
            tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, **{"strftime_now": strftime_now, **kwargs}
            )
    return bool(asked)


def find_turn(tokenizer: ChatTokenizer, messages: Sequence[Message], answer: str, settings: TemplateSettings) -> Turn:
    """How the template writes ``answer`` after ``messages``.

    The prompt is always what the model is given when it is asked. Where the template writes the same messages otherwise
    once they are answered (Mistral's loses the system message, R1's has no thought), only the assistant's turn is
    taken from the answered conversation.

    Raises:
        ConfigError: the template changes the answer, opens the turn otherwise when it is answered, or ends it with no
            special token.
    """
    given = render(tokenizer, messages, settings, opened=True)
    whole = render(tokenizer, [*messages, Message("assistant", answer)], settings, opened=False)
    before, there, after = whole.rpartition(answer)
    if not there:
        raise ConfigError(f"it changes the answer: {_tail(whole)}")
    last = messages[-1].content.strip()
    opening = given.rpartition(last)[2]
    if before.startswith(given):
        lead = before[len(given) :]
    else:
        written = before.rpartition(last)[2]
        unthought = _OPEN_THOUGHT.sub("", opening)
        if written.startswith(opening):
            lead = written[len(opening) :]
        elif unthought != opening and written == unthought:
            lead = _CLOSED
        else:
            raise ConfigError(f"with the answer it renders {_tail(whole)}, without it {_tail(given)}")
    end, end_id = _end(tokenizer, after, whole)
    return Turn(opening, lead, end, end_id)


def _end(tokenizer: ChatTokenizer, after: str, whole: str) -> tuple[str, int]:
    """The text behind an answer up to the first special token, and that token.

    Added tokens that are not marked as special count where there is no other.
    """
    added = tokenizer.added_tokens_decoder
    special = {*tokenizer.all_special_ids, *(id_ for id_, token in added.items() if token.special)}
    ids = tokenizer.encode(after, add_special_tokens=False)
    for known in (special, added):
        for token in ids:
            text = text_of(tokenizer, [token])
            if token in known and text.strip() and text in after:
                return after[: after.find(text) + len(text)], token
    raise ConfigError(
        f"no special token ends the assistant's turn: {_tail(whole)}; name a template that ends it with one of the "
        "tokenizer's (chat_template)"
    )


def lost_text(text: str, read: str) -> int | None:
    """Where ``read`` has lost something of ``text``; None where it has all of it, with further blanks at most.

    Some tokenizers write a blank after special tokens; none may drop one, or a grid's cells run together.
    """
    kept = 0
    for letter in read:
        if kept < len(text) and letter == text[kept]:
            kept += 1
        elif letter != " ":
            return kept
    return None if kept == len(text) else kept


def _tail(text: str) -> str:
    return repr("…" + text[-60:])

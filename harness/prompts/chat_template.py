"""Renders conversations with a tokenizer's chat template: its variables, its clock, and text to ids and back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date as Date
from datetime import datetime, time
from typing import Any, Protocol

from pydantic import JsonValue

from harness.core.errors import ConfigError
from harness.prompts.prompt_template import Message

_DATE_STRING = "%d %b %Y"
"""The format of the date in Llama's templates, which use the variable ``date_string`` instead if it is set."""


class ChatTokenizer(Protocol):
    """The part of a Hugging Face tokenizer's interface that this package uses."""

    @property
    def all_special_ids(self) -> Collection[int]:
        """The ids of special tokens; transformers' tokenizers list only those with a name (``eos_token``)."""
        ...

    @property
    def added_tokens_decoder(self) -> Mapping[int, Any]:
        """The tokens added to the vocabulary, by id; each has an attribute ``special``."""
        ...

    def apply_chat_template(
        self, conversation: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool, **variables: object
    ) -> object:
        """Return the conversation as text (``tokenize`` is always False here)."""
        ...

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """Return the token ids of a text."""
        ...

    def decode(
        self, token_ids: Sequence[int], *, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool = False
    ) -> object:
        """Return the text of token ids."""
        ...


class TemplateRefusal(ConfigError):
    """A chat template cannot render the messages of a prompt."""


@dataclass(frozen=True)
class TemplateSettings:
    """Variables of a chat template. Training and sampling must use equal ones, or their prompts differ.

    Args:
        kwargs: variables by name, as in ``chat_template_kwargs`` of a request.
        date: the day that the template takes for today, such as ``2026-11-29``. None means the machine's clock.
    """

    kwargs: Mapping[str, JsonValue] = field(default_factory=dict)
    date: str | None = None

    def arguments(self) -> dict[str, object]:
        """Return the keyword arguments for ``apply_chat_template`` in this process."""
        day = self.date
        clock = {} if day is None else {"strftime_now": lambda form: format_day(day, form)}
        return {**clock, **self.request_kwargs()}

    def request_kwargs(self) -> dict[str, JsonValue]:
        """Return the ``chat_template_kwargs`` of a request with which a server renders the same text.

        A template that always calls ``strftime_now`` ignores ``date_string``; its date cannot be set this way.
        """
        fixed: dict[str, JsonValue] = {} if self.date is None else {"date_string": format_day(self.date, _DATE_STRING)}
        return {**fixed, **self.kwargs}


DEFAULT_SETTINGS = TemplateSettings()
"""No variables, and the machine's clock."""


def format_day(day: str, form: str) -> str:
    """Format midnight of an ISO date with a ``strftime`` format."""
    return datetime.combine(Date.fromisoformat(day), time()).strftime(form)


def render_chat(
    tokenizer: ChatTokenizer, messages: Sequence[Message], settings: TemplateSettings, *, opened: bool
) -> str:
    """Return the text of a conversation.

    Args:
        opened: end with the opening of the assistant's turn, as a prompt does.

    Raises:
        TemplateRefusal: the tokenizer has no chat template, or the template cannot render these messages.
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


def reads_clock(tokenizer: ChatTokenizer, kwargs: Mapping[str, JsonValue]) -> bool:
    """Return whether the chat template calls ``strftime_now``, so that prompts would change from day to day."""
    formats: list[str] = []

    def strftime_now(form: str) -> str:
        formats.append(form)
        return format_day("2000-01-01", form)

    variables: dict[str, Callable[[str], str] | JsonValue] = {"strftime_now": strftime_now, **kwargs}
    for roles in (("system", "user"), ("user",)):
        messages = [{"role": role, "content": "?"} for role in roles]
        with suppress(Exception):  # A template can fail in any way here; rendering a real prompt reports it.
            tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **variables)
    return bool(formats)


def decode_ids(tokenizer: ChatTokenizer, ids: Sequence[int]) -> str:
    """Return the text of token ids, with special tokens and every blank (some tokenizers remove blanks by default)."""
    return str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))


def first_lost_character(text: str, decoded: str) -> int | None:
    """Return the index of the first character of ``text`` that ``decoded`` lacks; None if it lacks none.

    Additional blanks are accepted, because some tokenizers add one after special tokens. A missing blank is not: the
    cells of a grid would run together.
    """
    matched = 0
    for letter in decoded:
        if matched < len(text) and letter == text[matched]:
            matched += 1
        elif letter != " ":
            return matched
    return None if matched == len(text) else matched

"""Token ids of chats, chats of token ids, and the language model that copies its last message."""

from __future__ import annotations

import re
from typing import Any

from harness.prompts.file_tokenizer import FileTokenizer
from tests.support.servers.chat_answers import Body
from tests.support.servers.language_model import LanguageModel

_TURN = re.compile(
    r"<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>\n|<\|start_header_id\|>(\w+)<\|end_header_id\|>\n\n(.*?)<\|eot_id\|>"
    r"|<start_of_turn>(\w+)\n(.*?)<end_of_turn>\n",
    re.DOTALL,
)
"""One turn of a chat in the formats of ChatML, Llama and Gemma."""


def count_tokens(body: Body) -> int:
    """Return the number of characters plus four per message."""
    return sum(len(message["content"]) + 4 for message in body["messages"])


def token_ids(tokenizer: FileTokenizer, messages: list[dict[str, str]], kwargs: Body) -> list[int]:
    """Return the token ids of a chat followed by the beginning of the assistant's turn."""
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **kwargs)
    return tokenizer.encode(text, add_special_tokens=False)


def messages_of(tokenizer: FileTokenizer, ids: list[int]) -> list[dict[str, str]]:
    """Decode token ids into the messages of a chat."""
    turns = [[part for part in turn.groups() if part is not None] for turn in _TURN.finditer(tokenizer.decode(ids))]
    return [{"role": role, "content": content} for role, content in turns]


def copying_model(tokenizer: FileTokenizer, **options: Any) -> LanguageModel:
    """Return a language model that copies the last user message: the right answer for toy/copy, compact prompt."""

    def right(text: str) -> str:
        turns = [[part for part in turn.groups() if part is not None] for turn in _TURN.finditer(text)]
        return turns[-1][1] if turns else ""

    return LanguageModel(tokenizer, right, **options)

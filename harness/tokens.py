"""Prompts and training samples as token ids, the same for trainer and harness.

The prompt is the tokenizer's own chat template over the prompt's messages. A sample is the prompt followed by the
assistant's turn up to and including its end-of-turn token: what a served model reads and is to write. Where a
check against the tokenizer allows it, ids come from tables (``harness.segments``): the same ids, many times faster.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Protocol

from harness.encoding import Encoder, GridText
from harness.errors import ConfigError
from harness.grid import COLOURS, MAX_SIDE, Grid, Pair, Task
from harness.prompt import Message, Prompt
from harness.rng import Stream
from harness.segments import Layout, SegmentTokenizer, SlotEncoder, skeleton

_PROBE_GRID = Grid(2, 3, bytes((0, 1, 2, 3, 4, 5)))
_CHECKS = 8
"""Random tasks on which a table must agree with the tokenizer, with 1 to this many train pairs."""
_PROBE = Task("probe", (Pair(_PROBE_GRID, _PROBE_GRID),) * 2, (Pair(_PROBE_GRID, _PROBE_GRID),))


class ChatTokenizer(Protocol):
    """What is used of a Hugging Face tokenizer."""

    @property
    def all_special_ids(self) -> Collection[int]:
        """The ids of special tokens; the end of a turn is one of them."""
        ...

    def apply_chat_template(
        self, conversation: list[dict[str, str]], *, tokenize: bool, add_generation_prompt: bool
    ) -> object:
        """The conversation as text (``tokenize`` is always False here)."""
        ...

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """The ids of a text."""
        ...

    def decode(self, token_ids: Sequence[int]) -> object:
        """The text of ids."""
        ...


@dataclass(frozen=True, slots=True)
class Sample:
    """A training sample: ``ids[:prompt_length]`` is given, ``ids[prompt_length:]`` is learned."""

    ids: list[int]
    prompt_length: int


class PromptTokenizer:
    """Builds the token ids of one prompt text with one grid encoder for one tokenizer.

    Args:
        fast: use tables where a check against the tokenizer passes; the ids are the same either way.

    Raises:
        ConfigError: the tokenizer has no chat template, or the template does not extend the prompt when the
            assistant answers (some templates rewrite earlier turns), or it ends the turn with no special token.
    """

    def __init__(self, tokenizer: ChatTokenizer, prompt: Prompt, encoder: Encoder, *, fast: bool = True) -> None:
        self.tokenizer, self.prompt, self.encoder = tokenizer, prompt, encoder
        self._end = self._end_of_turn()
        given, learned = self._texts(_PROBE, 0)
        self._splits = self._encode(given) + self._encode(learned) == self._encode(given + learned)
        self.path = "tokenizer"
        """How ids are made: ``cells`` or ``rows`` (by table), or ``tokenizer``."""
        self._segments = self._checked_segments() if fast and self._splits else None

    def prompt_ids(self, task: Task, test_index: int) -> list[int]:
        """The ids a model is given for one test pair: chat template with the opening of the assistant's turn."""
        if self._segments is not None:
            return self._segments.prompt_ids(task, test_index)
        return self._encode(self.prompt_text(task, test_index))

    def sample(self, task: Task, test_index: int) -> Sample:
        """The ids of prompt and answer for one test pair.

        Raises:
            SpecError: the test pair has no output.
        """
        if self._segments is not None:
            self.prompt.answer_grid(task, test_index)  # raises where it is not known
            ids = self._segments.prompt_ids(task, test_index)
            return Sample(ids + self._segments.answer_ids(task, test_index), len(ids))
        given, learned = self._texts(task, test_index)
        ids = self._encode(given)
        if self._splits:
            return Sample(ids + self._encode(learned), len(ids))
        whole = self._encode(given + learned)
        if whole[: len(ids)] != ids:
            raise ConfigError(
                f"prompt {self.prompt.name!r}: the tokenizer merges the end of the prompt with the start of the answer"
            )
        return Sample(whole, len(ids))

    def prompt_text(self, task: Task, test_index: int) -> str:
        """The text behind ``prompt_ids``."""
        return self._render(self.prompt.messages(task, test_index, self.encoder), opened=True)

    def _checked_segments(self) -> SegmentTokenizer | None:
        """The fastest table that gives the tokenizer's own ids on a few random tasks; None where none does."""
        tasks = [_random_task(n) for n in range(1, _CHECKS + 1)]
        wanted = [[self._encode(text) for text in self._texts(task, 0)] for task in tasks]
        for path, cut in (("cells", True), ("cells", False), ("rows", True), ("rows", False)):
            segments = SegmentTokenizer(self._encode, self.encoder, self._layouts, cut=cut, by_cell=path == "cells")
            if wanted == [[segments.prompt_ids(task, 0), segments.answer_ids(task, 0)] for task in tasks]:
                self.path = path
                return segments
        return None

    def _layouts(self, n_train: int) -> tuple[Layout, Layout]:
        given, learned = self._texts(skeleton(n_train), 0, SlotEncoder())
        return Layout(given), Layout(learned)

    def _texts(self, task: Task, test_index: int, encoder: GridText | None = None) -> tuple[str, str]:
        """The prompt, and the assistant's turn up to and including its end-of-turn token."""
        messages = self.prompt.messages(task, test_index, encoder or self.encoder)
        answer = self.prompt.answer(task, test_index, encoder or self.encoder)
        given = self._render(messages, opened=True)
        whole = self._render((*messages, Message("assistant", answer)), opened=False)
        learned = whole[len(given) :]
        end = learned.find(self._end, learned.find(answer) + len(answer))
        if not whole.startswith(given) or answer not in learned or end < 0:
            raise self._bad_template(f"with the answer it renders {_tail(whole)}, without it {_tail(given)}")
        return given, learned[: end + len(self._end)]

    def _end_of_turn(self) -> str:
        """The text of the special token with which the template closes the assistant's turn."""
        messages = self.prompt.messages(_PROBE, 0, self.encoder)
        answer = self.prompt.answer(_PROBE, 0, self.encoder)
        whole = self._render((*messages, Message("assistant", answer)), opened=False)
        after = whole.rpartition(answer)[2]
        special = set(self.tokenizer.all_special_ids)
        for token in self._encode(after):
            if token in special:
                return str(self.tokenizer.decode([token]))
        raise self._bad_template(f"no special token ends the assistant's turn: {_tail(whole)}")

    def _render(self, messages: Sequence[Message], *, opened: bool) -> str:
        from jinja2 import TemplateError

        conversation = [{"role": m.role, "content": m.content} for m in messages]
        try:
            text = self.tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=opened)
        except (TemplateError, ValueError) as error:  # ValueError: the tokenizer has no chat template
            raise self._bad_template(str(error)) from error
        return str(text)

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def _bad_template(self, why: str) -> ConfigError:
        return ConfigError(
            f"prompt {self.prompt.name!r}: the tokenizer's chat template cannot be trained on ({why}); "
            "use a tokenizer whose template appends the assistant's turn to the prompt"
        )


@cache
def _random_task(n_train: int) -> Task:
    """A task of random grids of any shape, with ``n_train`` train pairs (at least one); always the same."""
    stream = Stream("tokens", n_train)

    def grid(height: int, width: int) -> Grid:
        return Grid(height, width, bytes(stream.below(COLOURS) for _ in range(height * width)))

    sides = [(stream.between(1, MAX_SIDE), stream.between(1, 12)) for _ in range(2 * n_train)]
    grids = [
        grid(*side) for side in [*sides, (1, 1), (MAX_SIDE, MAX_SIDE), (1, MAX_SIDE), (MAX_SIDE, 1)][-2 * n_train - 2 :]
    ]
    pairs = [Pair(source, target) for source, target in zip(grids[::2], grids[1::2], strict=True)]
    return Task("random", tuple(pairs[:-1]), (pairs[-1],))


def _tail(text: str) -> str:
    return repr("…" + text[-60:])

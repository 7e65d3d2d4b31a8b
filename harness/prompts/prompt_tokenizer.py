"""Prompts and training samples as token ids, the same for trainer and harness.

The prompt is the chat template over the prompt's messages. A sample is the prompt followed by the assistant's turn up
to and including its end-of-turn token: what a served model reads and is to write. Where a check against the tokenizer
allows it, ids come from tables (``harness.prompts.table_tokenizer``): the same ids, many times faster.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from itertools import product

from harness.core.errors import ConfigError
from harness.core.grid import Grid, Pair, Task
from harness.prompts.assistant_turn import AssistantTurn, find_assistant_turn
from harness.prompts.chat_template import (
    DEFAULT_SETTINGS,
    ChatTokenizer,
    TemplateRefusal,
    TemplateSettings,
    decode_ids,
    first_lost_character,
    render_chat,
)
from harness.prompts.grid_encoder import GridEncoder, GridWriter
from harness.prompts.prompt_template import Prompt, load_prompt, nosystem_prompt
from harness.prompts.table_probes import probe_tasks, random_task
from harness.prompts.table_tokenizer import SlottedText, SlotWriter, TableTokenizer, slot_task

_PROBE_GRID = Grid(2, 3, bytes((0, 1, 2, 3, 4, 5)))
_TABLES = {"cells": 1, "triples": 3, "pairs": 2, "rows": 0}
"""Tables by name, the fastest first, with the cells that are looked up at a time."""
_PROBE = Task("probe", (Pair(_PROBE_GRID, _PROBE_GRID),) * 2, (Pair(_PROBE_GRID, _PROBE_GRID),))


@dataclass(frozen=True, slots=True)
class TrainingSample:
    """A training sample: ``ids[:prompt_length]`` is given, ``ids[prompt_length:]`` is learned."""

    ids: list[int]
    prompt_length: int


class PromptTokenizer:
    """Builds the token ids of one prompt text with one grid encoder for one tokenizer.

    Args:
        settings: the variables of the chat template.
        fast: use tables where a check against the tokenizer passes; the ids are the same either way.

    Raises:
        TemplateRefusal: the tokenizer has no chat template, or it does not take the prompt's messages.
        ConfigError: the tokenizer does not keep the text of the prompt.
    """

    def __init__(
        self,
        tokenizer: ChatTokenizer,
        prompt: Prompt,
        encoder: GridEncoder,
        *,
        settings: TemplateSettings = DEFAULT_SETTINGS,
        fast: bool = True,
    ) -> None:
        self.tokenizer, self.prompt, self.encoder, self.settings = tokenizer, prompt, encoder, settings
        text = self.prompt_text(_PROBE, 0)
        self._check_text(text)
        systems = [m.content.strip() for m in prompt.messages(_PROBE, 0, encoder) if m.role == "system"]
        self.keeps_system = all(system in text for system in systems)
        """Whether the template writes the system message, if the prompt has one; some drop it."""
        self._turn = self._find_turn()
        self._joined = self._is_joined()
        self.method = "tokenizer"
        """How ids are made: by table of ``cells``, ``pairs`` or ``triples`` of cells or ``rows``, or ``tokenizer``."""
        self._segments = self._checked_segments() if fast and not self._joined else None

    @property
    def turn(self) -> AssistantTurn:
        """How the template writes the assistant's turn.

        Raises:
            ConfigError: the template cannot be trained on; prompts can be asked all the same.
        """
        if isinstance(self._turn, ConfigError):
            raise self._turn
        return self._turn

    def prompt_ids(self, task: Task, test_index: int) -> list[int]:
        """The ids a model is given for one test pair: chat template with the opening of the assistant's turn."""
        if self._segments is not None:
            return self._segments.prompt_ids(task, test_index)
        return self._encode(self.prompt_text(task, test_index))

    def sample(self, task: Task, test_index: int) -> TrainingSample:
        """The ids of prompt and answer for one test pair.

        Raises:
            SpecError: the test pair has no output. ConfigError: the chat template cannot be trained on.
        """
        if isinstance(self._turn, ConfigError):
            raise self._turn
        if self._segments is not None:
            self.prompt.answer_grid(task, test_index)  # raises where it is not known
            ids = self._segments.prompt_ids(task, test_index)
            return TrainingSample(ids + self._segments.answer_ids(task, test_index), len(ids))
        given, learned = self._texts(task, test_index)
        ids = self._encode(given)
        if self._joined:
            whole = self._encode(given + learned)
            if whole[: len(ids)] == ids:
                return TrainingSample(whole, len(ids))
        return TrainingSample(ids + self._encode(learned), len(ids))

    def prompt_text(self, task: Task, test_index: int) -> str:
        """The text behind ``prompt_ids``."""
        messages = self.prompt.messages(task, test_index, self.encoder)
        try:
            return render_chat(self.tokenizer, messages, self.settings, opened=True)
        except TemplateRefusal as error:
            raise TemplateRefusal(f"prompt {self.prompt.name!r}: the chat template does not take it: {error}") from None

    def _check_text(self, text: str) -> None:
        """Refuse a tokenizer that drops characters, as one with a cut vocabulary does without a word."""
        read = decode_ids(self.tokenizer, self._encode(text))
        if (place := first_lost_character(text, read)) is not None:
            raise ConfigError(
                f"prompt {self.prompt.name!r}: the tokenizer loses text: {_around(text, place)} comes back as "
                f"{_around(read, place)}; use a prompt and an encoder of characters that it knows, or another tokenizer"
            )

    def _find_turn(self) -> AssistantTurn | ConfigError:
        """The assistant's turn, which must be the same for any task; or why it cannot be learned."""
        try:
            turns = {
                find_assistant_turn(
                    self.tokenizer,
                    self.prompt.messages(task, 0, self.encoder),
                    self.prompt.answer(task, 0, self.encoder),
                    self.settings,
                )
                for task in (_PROBE, random_task(2))
            }
        except ConfigError as error:
            return self._untrainable(str(error))
        turn = turns.pop()
        return turn if not turns else self._untrainable("it writes the assistant's turn in several ways")

    def _is_joined(self) -> bool:
        """Whether prompt and answer must be tokenized together, as they are not the same ids apart.

        Where their seam is one token together, the model still reads the prompt alone when it is asked: then apart.
        """
        given, learned = self._texts(_PROBE, 0)
        ids, answer, whole = self._encode(given), self._encode(learned), self._encode(given + learned)
        if ids + answer == whole or whole[: len(ids)] == ids:
            return ids + answer != whole
        if decode_ids(self.tokenizer, answer) != learned and isinstance(self._turn, AssistantTurn):
            self._turn = self._untrainable("the tokenizer merges the end of the prompt with the start of the answer")
        return False

    def _checked_segments(self) -> TableTokenizer | None:
        """The fastest table that gives the tokenizer's own ids on all probes; None where none does."""
        tasks = probe_tasks()
        wanted = [[self._encode(text) for text in self._texts(task, 0)] for task in tasks]
        for (path, cells), cut in product(_TABLES.items(), (True, False)):
            segments = TableTokenizer(self._encode, self.encoder, self._layouts, cut=cut, cells=cells)
            made = ([segments.prompt_ids(task, 0), segments.answer_ids(task, 0)] for task in tasks)
            if all(ids == own for ids, own in zip(made, wanted, strict=True)):
                self.method = path
                return segments
        return None

    def _layouts(self, n_train: int) -> tuple[SlottedText, SlottedText]:
        given, learned = self._texts(slot_task(n_train), 0, SlotWriter())
        return SlottedText(given), SlottedText(learned)

    def _texts(self, task: Task, test_index: int, encoder: GridWriter | None = None) -> tuple[str, str]:
        """The prompt, and the answer with what the template writes around it up to its end-of-turn token."""
        messages = self.prompt.messages(task, test_index, encoder or self.encoder)
        answer = self.prompt.answer(task, test_index, encoder or self.encoder)
        given = render_chat(self.tokenizer, messages, self.settings, opened=True)
        if isinstance(self._turn, ConfigError):
            return given, answer
        return given, self._turn.answer_prefix + answer + self._turn.answer_suffix

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def _untrainable(self, why: str) -> ConfigError:
        return ConfigError(
            f"prompt {self.prompt.name!r}: the tokenizer's chat template cannot be trained on ({why}); "
            "name another with chat_template"
        )


def usable_prompt(tokenizer: ChatTokenizer, prompt: Prompt, encoder: GridEncoder, settings: TemplateSettings) -> Prompt:
    """The prompt, or the one that asks the same without a system message where the template takes or keeps none."""
    other = nosystem_prompt(prompt.name)
    if other is None:
        return prompt
    try:
        if PromptTokenizer(tokenizer, prompt, encoder, settings=settings, fast=False).keeps_system:
            return prompt
    except TemplateRefusal:
        pass
    with suppress(TemplateRefusal):
        PromptTokenizer(tokenizer, load_prompt(other), encoder, settings=settings, fast=False)
        return load_prompt(other)
    return prompt


def _around(text: str, place: int) -> str:
    return repr(text[max(0, place - 10) : place + 30])

"""Converts prompts and training samples to token ids, in the same way for trainer and harness.

A prompt is its messages rendered by the chat template. A training sample is a prompt followed by the assistant's turn
with its end-of-turn token: what a served model reads and should write. If tables of token ids
(``harness.prompts.table_tokenizer``) agree with the tokenizer on a set of probes, they replace it: the ids are equal,
and come many times faster.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

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
from harness.prompts.grid_text import GridEncoder, GridWriter
from harness.prompts.prompt_template import Prompt, load_prompt, nosystem_prompt
from harness.prompts.table_probes import fastest_table, probe_tasks, random_task
from harness.prompts.table_tokenizer import SlottedText, SlotWriter, TableTokenizer, slot_grids, slot_task
from harness.prompts.token_ranges import TokenRange, ranges_by_offset
from harness.prompts.training_sample import TrainingSample

_PROBE_GRID = Grid(2, 3, bytes((0, 1, 2, 3, 4, 5)))
_PROBE = Task("probe", (Pair(_PROBE_GRID, _PROBE_GRID),) * 2, (Pair(_PROBE_GRID, _PROBE_GRID),))


class PromptTokenizer:
    """Converts tasks to token ids, for one tokenizer, prompt and grid encoder.

    Args:
        settings: variables of the chat template.
        fast: use a table of token ids if it agrees with the tokenizer. The ids are equal in any case.

    Raises:
        TemplateRefusal: the tokenizer has no chat template, or the template cannot render the prompt's messages.
        ConfigError: the tokenizer loses characters of the prompt.
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
        """Whether the prompt's system message, if it has one, is in the rendered text. Some templates drop it."""
        self._turn = self._find_turn()
        self._joined = self._is_joined()
        self.method, self._table = self._fastest_table() if fast and not self._joined else ("tokenizer", None)
        """Where ids come from: a table of ``cells``, ``pairs`` of cells, ``triples`` or ``rows``, or ``tokenizer``."""

    @property
    def turn(self) -> AssistantTurn:
        """How the template writes the assistant's turn.

        Raises:
            ConfigError: the template cannot be trained on. Prompts for sampling can still be made.
        """
        if isinstance(self._turn, ConfigError):
            raise self._turn
        return self._turn

    def prompt_ids(self, task: Task, test_index: int) -> list[int]:
        """Return the ids that a model reads for one test pair, up to the opening of the assistant's turn."""
        if (table := self._table_for(task)) is not None:
            return table.prompt_ids(task, test_index)
        return self._encode_text(self.prompt_text(task, test_index))

    def sample(self, task: Task, test_index: int) -> TrainingSample:
        """Return the ids of prompt and answer for one test pair.

        Raises:
            SpecError: the test pair has no output. ConfigError: the chat template cannot be trained on.
        """
        if isinstance(self._turn, ConfigError):
            raise self._turn
        if (table := self._table_for(task)) is not None:
            self.prompt.answer_grid(task, test_index)  # raises SpecError if it is not known
            ids = table.prompt_ids(task, test_index)
            return TrainingSample(ids + table.answer_ids(task, test_index), len(ids))
        prompt, answer = self._texts(task, test_index)
        ids = self._encode_text(prompt)
        if self._joined:
            whole = self._encode_text(prompt + answer)
            if whole[: len(ids)] == ids:
                return TrainingSample(whole, len(ids))
        return TrainingSample(ids + self._encode_text(answer), len(ids))

    def sample_with_outputs(self, task: Task, test_index: int) -> TrainingSample:
        """Return ``sample``, with the outputs of the train pairs after the first to be learned too.

        Where the prompt asks for an input, these are the inputs.

        Raises:
            ConfigError: the tokenizer does not tell which tokens write a grid; else as ``sample``.
        """
        ranges = self._grid_ranges(task, test_index)
        side = int(not self.prompt.asks_input)
        wanted = range(2 + side, 2 * len(task.train), 2)
        return replace(self.sample(task, test_index), learned=tuple(ranges[k] for k in wanted if k in ranges))

    def _grid_ranges(self, task: Task, test_index: int) -> dict[int, TokenRange]:
        """Return the token range of each grid in the prompt, by its index in ``slot_grids``."""
        if (table := self._table_for(task)) is not None:
            return table.prompt_ranges(task, test_index, lambda ids: decode_ids(self.tokenizer, ids))
        slotted, grids = self._slotted_texts(len(task.train))[0], slot_grids(task, test_index)
        text, parts = slotted.fill_slots(grids, self.encoder), slotted.locate_slots(grids, self.encoder)
        if text != self.prompt_text(task, test_index):
            raise ConfigError(f"prompt {self.prompt.name!r}: the chat template changes grids; use loss_on: answer")
        return dict(zip(slotted.grids, ranges_by_offset(self.tokenizer, text, parts), strict=True))

    def answer_ids(self, task: Task, test_index: int) -> list[int]:
        """Return the ids of the answer and its end of turn, as ``sample`` has them (and raises)."""
        if self._joined:
            whole = self.sample(task, test_index)
            return whole.ids[whole.prompt_length :]
        if isinstance(self._turn, ConfigError):
            raise self._turn
        if (table := self._table_for(task)) is not None:
            self.prompt.answer_grid(task, test_index)  # raises SpecError if it is not known
            return table.answer_ids(task, test_index)
        return self._encode_text(self._texts(task, test_index)[1])

    def prompt_text(self, task: Task, test_index: int) -> str:
        """Return the text of which ``prompt_ids`` returns the ids."""
        messages = self.prompt.messages(task, test_index, self.encoder)
        try:
            return render_chat(self.tokenizer, messages, self.settings, opened=True)
        except TemplateRefusal as error:
            raise TemplateRefusal(f"prompt {self.prompt.name!r}: the chat template does not take it: {error}") from None

    def _check_text(self, text: str) -> None:
        """Raise ConfigError for a tokenizer that drops characters, as one with a reduced vocabulary does silently."""
        decoded = decode_ids(self.tokenizer, self._encode_text(text))
        if (index := first_lost_character(text, decoded)) is not None:
            raise ConfigError(
                f"prompt {self.prompt.name!r}: the tokenizer loses text: {_quote_around(text, index)} comes back as "
                f"{_quote_around(decoded, index)}; use a prompt and an encoder of characters that it knows, or another "
                "tokenizer"
            )

    def _find_turn(self) -> AssistantTurn | ConfigError:
        """Return the assistant's turn, the same for two tasks, or the error that says why it cannot be trained on."""
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
            return self._untrainable_template(str(error))
        turn = turns.pop()
        return turn if not turns else self._untrainable_template("it writes the assistant's turn in several ways")

    def _is_joined(self) -> bool:
        """Return whether prompt and answer must be tokenized together, because separately the answer gets other ids.

        If one token would span the end of the prompt and the start of the answer, they are tokenized separately: when
        the model is sampled, it reads the prompt's own ids.
        """
        prompt, answer = self._texts(_PROBE, 0)
        ids, answer_ids, whole = map(self._encode_text, (prompt, answer, prompt + answer))
        if ids + answer_ids == whole or whole[: len(ids)] == ids:
            return ids + answer_ids != whole
        if decode_ids(self.tokenizer, answer_ids) != answer and isinstance(self._turn, AssistantTurn):
            self._turn = self._untrainable_template(
                "the tokenizer merges the end of the prompt with the start of the answer"
            )
        return False

    def _table_for(self, task: Task) -> TableTokenizer | None:
        """Return the table for a task; None without one, and for rows over 30, with which tables were not checked."""
        return None if self._table is None or task.has_long_rows() else self._table

    def _fastest_table(self) -> tuple[str, TableTokenizer | None]:
        """Return the fastest table whose ids equal the tokenizer's on all probes, with its name."""
        expected = [[self._encode_text(text) for text in self._texts(task, 0)] for task in probe_tasks()]
        return fastest_table(self._encode_text, self.encoder, self._slotted_texts, expected)

    def _slotted_texts(self, n_train: int) -> tuple[SlottedText, SlottedText]:
        """Return prompt and answer of tasks with ``n_train`` train pairs, with slots in place of grids."""
        prompt, answer = self._texts(slot_task(n_train), 0, SlotWriter())
        return SlottedText(prompt), SlottedText(answer)

    def _texts(self, task: Task, test_index: int, encoder: GridWriter | None = None) -> tuple[str, str]:
        """Return the prompt, and the answer with the turn's prefix and suffix (if the turn can be trained on)."""
        messages = self.prompt.messages(task, test_index, encoder or self.encoder)
        answer = self.prompt.answer(task, test_index, encoder or self.encoder)
        prompt = render_chat(self.tokenizer, messages, self.settings, opened=True)
        if isinstance(self._turn, ConfigError):
            return prompt, answer
        return prompt, self._turn.answer_prefix + answer + self._turn.answer_suffix

    def _encode_text(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def _untrainable_template(self, why: str) -> ConfigError:
        return ConfigError(
            f"prompt {self.prompt.name!r}: the tokenizer's chat template cannot be trained on ({why}); "
            "name another with chat_template"
        )


def usable_prompt(tokenizer: ChatTokenizer, prompt: Prompt, encoder: GridEncoder, settings: TemplateSettings) -> Prompt:
    """Return the prompt, or its variant without a system message if the chat template refuses or drops that message."""
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


def _quote_around(text: str, index: int) -> str:
    return repr(text[max(0, index - 10) : index + 30])
